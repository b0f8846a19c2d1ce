"""ES modules joined into one text, because a page on the disk can import no file.

The sources import each other as modules do, so that editors, debuggers and checkers understand them. Joined, they share
one scope: each file stands once, before those that import it, without its imports and without the word `export`.
"""

import re
from pathlib import Path

IMPORT = re.compile(r'^import \{([^{}]*)\} from "\./([\w-]+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?function\b|class\b|const\b|let\b)", re.MULTILINE)
DECLARED = re.compile(r"^(export )?(?:(?:async )?function\*?|class|const|let) ([\w$]+)", re.MULTILINE)
UNNAMED = re.compile(r"^(?:var\b|(?:const|let) [\[{]).*|^(?:const|let) .*,$|^let [^=]*,.*", re.MULTILINE)
DEFAULT = re.compile(r"^export default (?=\{)", re.MULTILINE)
OTHER = re.compile(r"^.*\b(?:import|export)\b.*", re.MULTILINE)


def join(folder: Path, name: str) -> str:
    """The module `name` of a folder and all that it imports, as the text of one module.

    Raises:
        OSError: a file is not there.
        ValueError: a file says what joining does not understand, or two files declare the same name.
    """
    owners: dict[str, str] = {}  # of each name that stands at the top of a file
    exports: dict[str, set[str]] = {}  # of each file that is joined
    return "\n".join(texts_of(folder, name, owners, exports, ()))


def texts_of(folder: Path, name: str, owners: dict, exports: dict, above: tuple[str, ...]) -> list[str]:
    """The texts of a module and of what it imports, in their order; none of a module that is there already."""
    if name in above:
        raise ValueError(
            f"{name} imports itself through {' and '.join(above)}; move what both need to a file of its own"
        )
    if name in exports:
        return []
    source = (folder / name).read_text(encoding="utf-8")
    texts = []
    for names, other in IMPORT.findall(source):
        texts += texts_of(folder, other, owners, exports, (*above, name))
        check_names(name, other, [part.strip() for part in names.split(",") if part.strip()], exports[other])
    exports[name] = {declared for exported, declared in DECLARED.findall(source) if exported}
    for _, declared in DECLARED.findall(source):
        if declared in owners:
            raise ValueError(f"{owners[declared]} and {name} both declare {declared!r}; give one of them another name")
        owners[declared] = name
    return [*texts, stripped(name, source, is_whole=not above)]


def check_names(name: str, other: str, names: list[str], exported: set[str]) -> None:
    """Raise ValueError unless a file exports all that another imports from it."""
    for wanted in names:
        if wanted not in exported:
            raise ValueError(
                f"{name} imports {wanted!r}, which {other} does not export; import it by the name it has there"
            )


def stripped(name: str, source: str, is_whole: bool) -> str:
    """The text of a module without its imports and exports; the default export stays in the one that others serve."""
    text = EXPORT.sub("", IMPORT.sub("", source))
    rest, n_defaults = DEFAULT.subn("", text) if is_whole else (text, 1)
    if n_defaults != 1:
        raise ValueError(f"{name} exports no figure; end it with one statement that begins with export default {{")
    for found in filter(None, (OTHER.search(rest), UNNAMED.search(rest))):
        raise ValueError(
            f"{name} says {found[0].strip()!r}, which joining does not understand; write "
            'import { name } from "./file.js", or export or declare one function, class, const or let by its name'
        )
    return text
