"""What the docs say is so: links, commands, options, settings; and the site is built."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import Field

import cli
from shared.config import Config, find_config, load_config, shipped_configs

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "pages").rglob("*.md"))
TEXTS = [*PAGES, ROOT / "README.md", ROOT / "data" / "README.md", *sorted((ROOT / "apps").glob("*/README.md"))]
COMMAND_LINE = ROOT / "docs" / "pages" / "reference" / "command-line.md"
APPS = sorted(path.parent.name for path in (ROOT / "apps").glob("*/cli.py"))
FILES = ROOT / "docs" / "pages" / "reference" / "files.md"

# The rooms that write files with fixed names.
WRITERS = ("train", "evaluate", "explain", "report", "compare")

# Options of other programs that the text speaks of.
FOREIGN = {"--ntasks-per-node", "--node-rank", "--requeue"}


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def configuration(app: str) -> tuple[Any, Path]:
    """The config class of an app and the folder of its shipped settings."""
    module = importlib.import_module(f"apps.{app}.config")
    return getattr(module, f"{app.capitalize()}Config"), module.CONFIGS


def prose(file: Path) -> str:
    """The text without what stands in fences."""
    return re.sub(r"^```.*?^```$", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


# Links


def anchors(file: Path) -> set[str]:
    headings = re.findall(r"^#+ +(.+)$", prose(file), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-") for heading in headings}


@pytest.mark.parametrize("file", TEXTS, ids=name)
def test_links_and_images_lead_somewhere(file: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", prose(file))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        assert target.exists(), f"{name(file)} links to {link}"
        if file in PAGES:
            assert target.is_relative_to(ROOT / "docs" / "pages"), f"{name(file)}: the site does not hold {link}"
        if anchor:
            assert anchor in anchors(target), f"{name(file)} links to {link}"


def test_the_navigation_holds_every_page_once() -> None:
    nav = (ROOT / "docs" / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r": (\S+\.md)$", nav, re.MULTILINE)
    assert sorted(listed) == sorted(page.relative_to(ROOT / "docs" / "pages").as_posix() for page in PAGES)


def test_pictures_are_small_and_shown() -> None:
    texts = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    pictures = [file for kind in ("png", "jpg") for file in (ROOT / "docs" / "pages").rglob(f"*.{kind}")]
    assert pictures
    for file in pictures:
        assert file.stat().st_size < 150_000, name(file)
        assert f"]({file.name})" in texts, f"no page beside {name(file)} shows it"


# Commands


def commands(file: Path) -> Iterator[list[str]]:
    """The words after `manyheads` of every command in fences, in indented lines and in code spans."""
    text = file.read_text(encoding="utf-8").replace("\\\n", " ")
    text = re.sub(r"^```(?:python|toml)\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    fenced = re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in fenced for line in block.splitlines()]
    lines += re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    lines += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", re.sub(r"```", "", text))]
    for line in lines:
        found = re.search(r"(?:^|\s)manyheads (?!\.\.\.)(.+)$", line)
        if found:
            words = shlex.split(found[1], comments=True)
            ends = [i for i, word in enumerate(words) if word in ("&&", "|", ";", ">")]
            yield words[: ends[0]] if ends else words


def parsed(root: Any, words: list[str]) -> tuple[Any, dict[str, Any]] | None:
    """The command that `words` call and its parameters, as its own parser reads them; nothing is run."""
    command, label = root, "manyheads"
    while words:
        try:
            context = command.make_context(label, list(words))
        except typer.Exit:  # --help and --version
            return None
        if not hasattr(command, "commands"):
            return command, context.params
        words = [*context._protected_args, *context.args]
        if words:
            label = words[0]
            assert label in command.commands, f"there is no command {label}"
            command, words = command.commands[label], words[1:]
            if not words and not hasattr(command, "commands"):
                return command, command.make_context(label, []).params
    return None


@pytest.fixture(scope="module")
def root() -> Any:
    return typer.main.get_command(cli.root)


@pytest.mark.parametrize("file", TEXTS, ids=name)
def test_commands_parse_and_their_settings_are_valid(file: Path, root: Any) -> None:
    for words in commands(file):
        if words[0] == "series":  # the example app, which test_examples.py runs
            continue
        try:
            found = parsed(root, words)
            if found and words[0] in APPS and "sets" in found[1]:
                model, shipped = configuration(words[0])
                config = found[1]["config"]
                own = config is not None and config.suffix == ".toml"
                load_config(model, None if own else find_config(config, shipped), found[1]["sets"])
        except Exception as error:
            pytest.fail(f"{name(file)}: manyheads {' '.join(words)}: {error}")


def test_commands_are_found_and_wrong_ones_are_noticed(root: Any, tmp_path: Path) -> None:
    """The tests above would say nothing if they looked at nothing."""
    page = tmp_path / "page.md"
    fence = "```bash\nuv run manyheads music generate --colour red  # x\n```\n"
    page.write_text(f"a `manyheads music\ninfo --json`\n\n{fence}")
    assert sorted(commands(page)) == [["music", "generate", "--colour", "red"], ["music", "info", "--json"]]
    with pytest.raises(Exception, match="--colour"):
        parsed(root, ["music", "generate", "--colour", "red"])
    with pytest.raises(Exception, match="greater than or equal to 0"):
        parsed(root, ["music", "generate", "--temperature", "-3"])
    with pytest.raises(AssertionError, match="play"):
        parsed(root, ["music", "play"])
    assert sum(1 for file in TEXTS for _ in commands(file)) > 50


def options(command: Any) -> dict[str, Any]:
    return {option: p.default for p in command.params for option in p.opts if option.startswith("--")}


def every_option(command: Any) -> set[str]:
    below = set().union(*(every_option(one) for one in getattr(command, "commands", {}).values()))
    return below | set(options(command)) | {"--help"}


@pytest.mark.parametrize("file", TEXTS, ids=name)
def test_options_that_are_named_exist(file: Path, root: Any) -> None:
    named = set(re.findall(r"`(--[a-z][a-z-]*)", prose(file)))
    assert named <= every_option(root) | FOREIGN, name(file)


@pytest.mark.parametrize("app", APPS)
def test_every_command_is_documented_with_all_its_options(app: str, root: Any) -> None:
    text = (ROOT / "docs" / "pages" / app / "commands.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
    known = root.commands[app].commands
    assert sections.keys() == known.keys()
    for verb, command in known.items():
        assert f"`manyheads {app} {verb}" in sections[verb]
        assert set(re.findall(r"--[a-z][a-z-]*", sections[verb])) == options(command).keys() - {"--help"}, verb
        if options(command).get("--out"):
            assert f"(`{options(command)['--out']}`)" in " ".join(sections[verb].split()), verb


def test_every_common_option_is_documented() -> None:
    table = COMMAND_LINE.read_text().partition("## Common options")[2].partition("## ")[0]
    known = re.findall(r'typer\.Option\(\s*"(--\S+)"', (ROOT / "shared" / "command.py").read_text())
    assert set(re.findall(r"^\| `(--\S+)`", table, re.MULTILINE)) == set(known)


# Settings


def settings_page(app: str) -> str:
    return (ROOT / "docs" / "pages" / app / "configuration.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("app", APPS)
def test_every_shipped_configuration_is_named(app: str) -> None:
    table = settings_page(app).partition("## Shipped")[2].partition("## ")[0]
    assert sorted(re.findall(r"^\| `(\S+)` \|", table, re.MULTILINE)) == shipped_configs(configuration(app)[1])


def fields(schema: dict[str, Any], definitions: dict[str, Any] | None = None, prefix: str = "") -> Iterator[str]:
    """The first four columns of the table of fields; those of a section have its name before theirs."""
    definitions = schema.get("$defs", {}) if definitions is None else definitions
    for field, value in schema["properties"].items():
        if "$ref" in value:
            yield from fields(definitions[value["$ref"].rsplit("/", 1)[1]], definitions, f"{field}.")
            continue
        default = value.get("default")
        value = next((one for one in value.get("anyOf", []) if one["type"] != "null"), value)
        yield f"| `{prefix}{field}` | {kind(value)} | {shown(default, value)} | {limits(value)}|"


def kind(value: dict[str, Any]) -> str:
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    if value["type"] == "array":
        return f"list of {kind(value['items'] if 'items' in value else value['prefixItems'][0])}"
    return {"boolean": "true or false", "string": "text"}.get(value["type"], value["type"])


def shown(default: Any, value: dict[str, Any]) -> str:
    if default is None or default == []:
        return "none"
    if isinstance(default, list):
        return ", ".join(map(str, default))
    return f"`{default}`" if "enum" in value else json.dumps(default)


def limits(value: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return ", ".join(f"{sign} {value[key]}" for key, sign in signs.items() if key in value) + " " * (
        any(key in value for key in signs)
    )


@pytest.mark.parametrize("app", APPS)
def test_every_field_of_the_configuration_is_documented_as_it_is(app: str) -> None:
    table = settings_page(app).partition("## Fields")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| `[\w.]+` .*$", table, re.MULTILINE)
    expected = list(fields(configuration(app)[0].model_json_schema()))
    for row in expected:
        meanings = [line.removeprefix(row).strip(" |") for line in lines if line.startswith(row)]
        assert len(meanings) == 1, f"docs/pages/{app}/configuration.md lacks the row {row}"
        assert meanings[0], f"docs/pages/{app}/configuration.md: {row} has no meaning"
    assert len(lines) == len(expected), f"docs/pages/{app}/configuration.md has a field that the code does not have"


def test_a_configuration_needs_no_sections() -> None:
    class Flat(Config):
        width: int = Field(default=3, ge=1)

    assert list(fields(Flat.model_json_schema())) == ["| `width` | integer | 3 | ≥ 1 |"]


def test_the_keys_of_model_cards_are_documented() -> None:
    documented = set(re.findall(r"^\| `(\w+)` \|", FILES.read_text().partition("## Model file")[2], re.MULTILINE))
    for card in (ROOT / "data" / "weights").glob("*.json"):
        assert json.loads(card.read_text()).keys() <= documented, card.name


def test_files_that_are_written_are_documented() -> None:
    """Every file name that stands in the code as it is."""
    text = FILES.read_text()
    verbs = [file for file in (ROOT / "apps").glob("*/*.py") if file.stem in WRITERS]
    for file in [*(ROOT / "shared" / "training").glob("*.py"), *verbs]:
        for written in re.findall(r'"([\w.-]+\.(?:json|jsonl|toml|png|svg|html|ckpt|safetensors))"', file.read_text()):
            assert f"`{written}`" in text, f"{name(file)} writes {written}"


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    for package in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; run this with `uv run --group docs pytest tests/docs -m slow`")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", ROOT / "docs" / "mkdocs.yml", "-d", tmp_path]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in PAGES:
        assert (tmp_path / page.relative_to(ROOT / "docs" / "pages")).with_suffix(".html").exists()
    assert "Complexity" in (tmp_path / "attention" / "relative.html").read_text(encoding="utf-8")
