"""The modules of the live figures: each is one by itself, joined they are one; what cannot be joined is refused."""

import shutil

import pytest

import mixer.widgets  # noqa: F401  (defines every kind of live figure)
from mixer.widgets.figure import FOLDER, LiveFigure
from mixer.widgets.modules import join

FIGURE = 'import { inner } from "./inner.js";\n\nexport default { render: inner };\n'
INNER = "export function inner() {}\n"


def written(folder, **sources):
    for name, text in {"figure": FIGURE, "inner": INNER, **sources}.items():
        (folder / f"{name}.js").write_text(text)
    return folder


LISTED = """import { a } from "./a.js";
import {
  b,
  c,
} from "./b.js";

export default { render: [a, b] };
"""


def test_what_is_imported_stands_once_before_those_that_import_it(tmp_path):
    uses_c = 'import { c } from "./c.js";\n\n'
    written(tmp_path, a=uses_c + "export const a = c;\n", b=uses_c + "export const b = c;\nexport class d {}\n")
    written(tmp_path, figure=LISTED.replace("  c,\n", ""), c="export let c = 3;\n")
    statements = "let c = 3;", "const a = c;", "const b = c;", "class d {}", "export default { render: [a, b] };"
    assert join(tmp_path, "figure.js").replace("\n", "") == "".join(statements)


def test_only_what_a_file_exports_is_imported_from_it(tmp_path):
    written(tmp_path, figure=LISTED, a="export const a = 1;\n", b="export const b = 1;\nconst c = 1;\n")
    with pytest.raises(ValueError, match=r"^figure.js imports 'c', which b.js does not export; import it by the name"):
        join(tmp_path, "figure.js")


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        (
            dict(figure=FIGURE.replace("inner }", "inner as other }")),
            "imports 'inner as other', which inner.js does not",
        ),
        (dict(figure=FIGURE.replace("{ inner }", "* as inner")), r"says 'import \* as inner from"),
        (dict(figure=FIGURE.replace("{ inner }", "inner")), "says 'import inner from"),
        (dict(figure='import "./inner.js";\n' + FIGURE), "says 'import"),
        (dict(figure=FIGURE.replace("./inner.js", "../inner.js")), "says 'import { inner } from"),
        (dict(figure=FIGURE.replace("./inner.js", "https://example.org/inner.js")), "says 'import { inner } from"),
        (dict(figure=FIGURE.replace(": inner", ": () => import(name)")), r"says '.*import\(name\)"),
        (dict(figure=FIGURE.replace(": inner", ": import.meta")), "says '.*import.meta"),
        (
            dict(figure=FIGURE.replace("export default", "export { inner };\nexport default")),
            "says 'export { inner };'",
        ),
        (dict(figure=FIGURE.replace("export default", "const figure =")), "figure.js exports no figure; end it with"),
        (dict(inner=INNER + 'export * from "./figure.js";\n'), r"inner.js says 'export \* from"),
        (dict(inner=INNER + "export default {};\n"), "inner.js says 'export default {};'"),
        (dict(inner=INNER + "export var name = 1;\n"), "inner.js says 'export var name = 1;'"),
        (dict(inner=INNER + "export const { name } = {};\n"), "inner.js says 'const { name } = {};'"),
        (dict(inner=INNER + "const [name] = [];\n"), r"inner.js says 'const \[name\] = \[\];'"),
        (dict(inner=INNER + "let first, second;\n"), "inner.js says 'let first, second;'"),
        (dict(inner=INNER + "const first = 1,\n  second = 2;\n"), "inner.js says 'const first = 1,'"),
        (dict(figure=FIGURE + "const inner = 1;\n"), "inner.js and figure.js both declare 'inner'; give one of them"),
        (dict(figure=FIGURE + "async function once() {}\n", inner=INNER + "class once {}\n"), "both declare 'once'"),
        (dict(inner='import { b } from "./b.js";\n' + INNER, b=FIGURE), "inner.js imports itself through "),
        (
            dict(inner='import { inner } from "./inner.js";\n' + INNER),
            "inner.js imports itself through figure.js and inner",
        ),
    ],
)
def test_what_joining_does_not_understand_is_refused_in_a_sentence(tmp_path, sources, words):
    written(tmp_path, **sources)
    with pytest.raises(ValueError, match=words) as refused:
        join(tmp_path, "figure.js")
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    (tmp_path / "figure.js").write_text(FIGURE)
    with pytest.raises(OSError, match=r"inner\.js"):
        join(tmp_path, "figure.js")


def test_each_source_is_a_module_by_itself(browser, served):
    """In Chromium, from a web server: so an editor or a debugger follows the imports as they stand."""
    folder, address = served
    for path in FOLDER.glob("*.js"):
        shutil.copy(path, folder)
    figures = sorted(kind.MODULE for kind in LiveFigure.__subclasses__())
    page = browser.new_page()
    page.goto(address)
    load = "async (url) => typeof (await import(url)).default.render"
    assert [page.evaluate(load, address + name) for name in figures] == ["function"] * 9
    page.close()
