"""Find what documents name and the repository does not have.

Markdown is parsed as GitHub does. Commands are parsed by the parsers of the
tools themselves, which run up to the point where they read their arguments.
"""

import argparse
import ast
import contextlib
import functools
import importlib
import io
import itertools
import os
import re
import runpy
import shlex
import sys
from pathlib import Path
from unittest import mock

from markdown_it import MarkdownIt

from mmtransxnet.command import programs
from tests.support.paths import ROOT

_MARKDOWN = MarkdownIt('commonmark').enable('table')

# A word in capitals stands for something of the reader's.
_PLACEHOLDER = re.compile(r'(?<![a-z])[A-Z][A-Z_]*(?![a-z])')
_FOLDERS = ('configs', 'docs', 'mmtransxnet', 'requirements', 'tests', 'tools')
_PATH = re.compile(rf'(?:{"|".join(_FOLDERS)})/[\w./*{{}},-]*\w')
_TEST = re.compile(r'(?:(?P<file>[\w/]*test_\w+\.py)::)?(?P<name>test_\w+)')
_DOTTED = re.compile(r'(?<![\w./-])mmtransxnet(?:\.\w+)+')
_EXTRAS = re.compile(r'(?:mmtransxnet|\.)\[([\w,]+)\]')
_PYTHON = re.compile(r'(from|import|with|def|class)\s|\w+\s*=(?!=)\s*\S')
_COMMAND = re.compile(
    r'(?:\w+=\S*\s+)*(?:python|make|mmtransxnet|tools/\S+\.(?:sh|py))\s+\S'
)
_ASSIGNMENT = re.compile(r'\w+=')

# Scripts that pass flags on: to which tool, and how many arguments before
# its own ones, and the arguments of their own after those.
_SCRIPTS = {
    'dist_train.sh': ('train.py', 0, 1, 1),
    'dist_test.sh': ('test.py', 0, 2, 1),
    'slurm_train.sh': ('train.py', 2, 1, 0),
    'slurm_test.sh': ('test.py', 2, 2, 0),
}


def problems_of(page: Path, text: str | None = None) -> list[str]:
    """All problems of a document.

    Args:
        page: The file, which links start from.
        text: Its content; read from the file if not given.
    """
    if text is None:
        text = page.read_text()
    tokens = _MARKDOWN.parse(text)
    found: list[str] = []
    for token in tokens:
        if token.type in ('code_block', 'fence'):
            found += _block_problems(token.content)
        for child in token.children or []:
            if child.type == 'code_inline':
                found += _inline_code_problems(child.content)
            elif child.type in ('link_open', 'image'):
                target = child.attrGet('href') or child.attrGet('src')
                found += _link_problems(str(target), page, text)
        if token.type in ('inline', 'code_block', 'fence'):
            found += _name_problems(token.content)
            found += _extra_problems(token.content)
    return found


def _block_problems(block: str) -> list[str]:
    lines = block.replace('\\\n', ' ').splitlines()
    commands = [line for line in lines if _COMMAND.match(line)]
    if commands:
        return [p for line in commands for p in command_problems(line)]
    if _PYTHON.match(block):
        return _python_problems(block)
    return []


def _inline_code_problems(code: str) -> list[str]:
    code = code.replace('\n', ' ')
    if _COMMAND.match(code):
        return command_problems(code)
    test = _TEST.fullmatch(code)
    if test:
        return _test_problems(test['file'], test['name'])
    if _PATH.fullmatch(code) and not _exists(code):
        return [f'no file {code}']
    return []


def _test_problems(file: str | None, name: str) -> list[str]:
    """Problems of a test, alone or in a file, with or without folders."""
    for path, text in _tests().items():
        is_there = not file or f'/{path}'.endswith(f'/{file}')
        if is_there and f'def {name}(' in text:
            return []
    return [f'no test {name}' + (f' in {file}' if file else '')]


@functools.cache
def _tests() -> dict[str, str]:
    """Texts of the tests by their paths."""
    return {
        str(path.relative_to(ROOT)): path.read_text()
        for path in ROOT.glob('tests/**/test_*.py')
    }


def _exists(path: str) -> bool:
    """Whether a path, or one with braces or stars, is there."""
    if _PLACEHOLDER.search(path.replace('README', '')):
        return True
    if path.startswith('mmtransxnet/.mim'):
        # In the wheel only.
        return True
    braces = re.search(r'\{([^}]*)\}', path)
    if braces:
        return all(
            _exists(path.replace(braces[0], part))
            for part in braces[1].split(',')
        )
    return any(ROOT.glob(path)) if '*' in path else (ROOT / path).exists()


def _link_problems(target: str, page: Path, text: str) -> list[str]:
    if re.match(r'\w+:', target):
        return []
    path, _, anchor = target.partition('#')
    if path:
        file = Path(os.path.normpath(page.parent / path))
        if not file.exists():
            return [f'no target of the link {target}']
        text = file.read_text() if file.suffix == '.md' else ''
    if anchor and anchor not in _anchors(text):
        return [f'no heading for the link {target}']
    return []


def _anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to headings."""
    tokens = _MARKDOWN.parse(text)
    titles = [
        following.content
        for token, following in itertools.pairwise(tokens)
        if token.type == 'heading_open'
    ]
    return {
        re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-')
        for title in titles
    }


def _python_problems(code: str) -> list[str]:
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        return [f'not Python: {error.text} ({error.msg})']
    return [
        problem
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and str(node.module).split('.')[0] == 'mmtransxnet'
        for alias in node.names
        for problem in _name_problems(f'{node.module}.{alias.name}')
    ]


def _name_problems(text: str) -> list[str]:
    return [
        f'no name {name}'
        for name in _DOTTED.findall(text)
        if not _resolves(name)
    ]


@functools.cache
def _resolves(name: str) -> bool:
    """Whether a dotted name is a module or an attribute of one."""
    parts = name.split('.')
    for end in range(len(parts), 0, -1):
        try:
            value = importlib.import_module('.'.join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[end:]:
            if not hasattr(value, attribute):
                return False
            value = getattr(value, attribute)
        return True
    return False


def _extra_problems(text: str) -> list[str]:
    return [
        f'no extra {name}'
        for names in _EXTRAS.findall(text)
        for name in names.split(',')
        if f"'{name}': " not in (ROOT / 'setup.py').read_text()
    ]


def command_problems(line: str) -> list[str]:
    """Problems of a line of a shell."""
    words = shlex.split(line, comments=True)
    while words and _ASSIGNMENT.match(words[0]):
        words.pop(0)
    found = [
        f'no file {word}'
        for word in words
        if _PATH.fullmatch(word) and not _exists(word)
    ]
    if found:
        return found
    program, arguments = words[0], words[1:]
    if program == 'make':
        return _target_problems(arguments)
    if program == 'mmtransxnet':
        return _program_problems(arguments)
    if program == 'python' and arguments[0].startswith('tools/'):
        return _argument_problems(ROOT / arguments[0], arguments[1:])
    if program.endswith('.py'):
        # A tool that is named with some of its arguments.
        return _argument_problems(ROOT / program, [*arguments, '...'])
    if program.startswith('tools/'):
        return _script_problems(program, arguments)
    return []


@functools.cache
def _targets() -> set[str]:
    makefile = (ROOT / 'Makefile').read_text()
    return set(re.findall(r'^([\w-]+):', makefile, re.MULTILINE))


def _target_problems(arguments: list[str]) -> list[str]:
    return [
        f'no target {name} of make'
        for name in arguments
        if '=' not in name and name not in _targets() and name != '...'
    ]


def _program_problems(arguments: list[str]) -> list[str]:
    name = arguments[0]
    if name in ('--help', 'PROGRAM'):
        return []
    if name not in programs():
        return [f'no program {name} of mmtransxnet']
    return _argument_problems(programs()[name], arguments[1:])


def _script_problems(script: str, arguments: list[str]) -> list[str]:
    name = Path(script).name
    if name not in _SCRIPTS or '[flags' in arguments:
        return []
    tool, before, own, after = _SCRIPTS[name]
    flags = arguments[before + own + after :]
    passed = arguments[before : before + own] + flags
    return _argument_problems(ROOT / 'tools' / tool, passed)


def _argument_problems(tool: Path, arguments: list[str]) -> list[str]:
    if not arguments:
        # A tool that is only named.
        return []
    parser = parser_of(tool)
    # An argument in brackets is an optional one.
    words = [word.strip('[]') for word in arguments]
    words = [word for word in words if word not in ('', '|')]
    flags = [word.split('=')[0] for word in words if word.startswith('--')]
    unknown = [
        f'{tool.name} has no {flag}'
        for flag in flags
        if flag not in parser._option_string_actions
    ]
    if unknown or words != arguments or '...' in words or '--help' in flags:
        return unknown
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            parsed = parser.parse_args(words)
    except SystemExit:
        reason = told.getvalue().strip().splitlines()[-1]
        return [f'{tool.name} rejects {shlex.join(words)}: {reason}']
    config = str(getattr(parsed, 'config', None) or '')
    if config.isidentifier() and not _is_config(config):
        return [f'no config {config}']
    return []


def _is_config(name: str) -> bool:
    placeholder = name.isupper() or name == 'None'
    return placeholder or any(ROOT.glob(f'configs/*/{name}.py'))


class _Found(BaseException):
    """Stops a tool where it reads its arguments."""


@functools.cache
def parser_of(tool: Path) -> argparse.ArgumentParser:
    """The parser of a tool, which runs until it parses."""
    found: list[argparse.ArgumentParser] = []

    def stop(parser, *_, **__):
        found.append(parser)
        raise _Found

    with (
        mock.patch.object(argparse.ArgumentParser, 'parse_known_args', stop),
        mock.patch.object(sys, 'argv', [str(tool)]),
        mock.patch.object(sys, 'path', [str(tool.parent), *sys.path]),
        contextlib.suppress(_Found),
    ):
        runpy.run_path(str(tool), run_name='__main__')
    return found[0]
