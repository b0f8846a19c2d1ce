// Spectra of maps: the power of their spatial frequencies, and which of these are strong.

import { highest } from "./numerics.js";

/** The discrete Fourier transform of each row of complex numbers [rows, columns]: its transpose, [columns, rows]. */
function transformRows([real, imaginary], rows, columns) {
  const angles = Float64Array.from({ length: columns }, (_, i) => (2 * Math.PI * i) / columns);
  const [cos, sin] = [angles.map(Math.cos), angles.map(Math.sin)];
  const result = [new Float64Array(real.length), new Float64Array(real.length)];
  for (let u = 0; u < columns; u++)
    for (let y = 0; y < rows; y++) {
      let [a, b] = [0, 0];
      for (let x = 0, turn = 0, i = y * columns; x < columns; x++, i++) {
        a += real[i] * cos[turn] + imaginary[i] * sin[turn];
        b += imaginary[i] * cos[turn] - real[i] * sin[turn];
        turn += u; // u·x modulo columns: the index of its cosine and sine
        if (turn >= columns) turn -= columns;
      }
      result[0][u * rows + y] = a;
      result[1][u * rows + y] = b;
    }
  return result;
}

/** The power of each spatial frequency of a map [rows, columns], frequency 0 in the middle. */
export function spectrum(map, rows, columns) {
  const across = transformRows([map, new Float64Array(map.length)], rows, columns); // [columns, rows]
  const [real, imaginary] = transformRows(across, columns, rows); // [rows, columns]
  const power = new Float32Array(rows * columns);
  for (let v = 0; v < rows; v++)
    for (let u = 0; u < columns; u++) {
      const [from, row] = [v * columns + u, (v + Math.floor(rows / 2)) % rows];
      const column = (u + Math.floor(columns / 2)) % columns;
      power[row * columns + column] = real[from] ** 2 + imaginary[from] ** 2;
    }
  return power;
}

/** Frequency i of a spectrum, [down, across] in cycles over the grid; frequency 0 stands in the middle. */
const cycles = (i, rows, columns) => [
  Math.floor(i / columns) - Math.floor(rows / 2),
  (i % columns) - Math.floor(columns / 2),
];

/** The mean frequency of a spectrum, weighted by power, in cycles per patch. */
export function meanFrequency(power, rows, columns) {
  const frequency = (i) => {
    const [down, across] = cycles(i, rows, columns);
    return Math.hypot(down / rows, across / columns);
  };
  const total = power.reduce((sum, value) => sum + value, 0);
  return power.reduce((sum, value, i) => sum + value * frequency(i), 0) / (total || 1);
}

/** The frequency of most power in a spectrum, in words. */
export function strongest(power, rows, columns) {
  const [down, across] = cycles(power.indexOf(highest(power)), rows, columns).map(Math.abs);
  return `${down} cycles down the grid and ${across} across`;
}
