// On paper a page is light, and what can be opened stands open; afterwards all is as it was.
let closed = [];
let theme;

addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  closed.forEach((card) => (card.open = true));
  theme = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
});

addEventListener("afterprint", () => {
  closed.forEach((card) => (card.open = false));
  document.documentElement.dataset.theme = theme;
});
