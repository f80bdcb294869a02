"""Pages of the site that are files elsewhere in the repository.

The documents link to each other and to files as on GitHub. Files outside of
``docs`` that are documents (the README files) become pages; other files that
a document links to become pages with their text.
"""

import logging
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]

# Pages of the site by their files.
DOCUMENTS = {
    'README.md': 'index.md',
    'CONTRIBUTING.md': 'contributing.md',
    'CHANGELOG.md': 'changelog.md',
    'configs/classification/README.md': 'models/classification.md',
    'configs/detection/README.md': 'models/detection.md',
    'configs/segmentation/README.md': 'models/segmentation.md',
}
_SOURCES = {page: source for source, page in DOCUMENTS.items()}

_LINK = re.compile(
    r'(?<=\]\()(?!\w+:)(?P<path>[^\s()#]+)(?P<anchor>#[^\s()]*)?'
)

# What a browser would load with the page.
_FOREIGN = re.compile(
    r'<(?:script|img|iframe)[^>]*\ssrc="?(?:https?:)?//[^>]*>'
    r'|<link[^>]*\shref="?(?:https?:)?//[^>]*>'
)

_LANGUAGES = {'.py': 'python', '.yml': 'yaml', '.json': 'json', '.sh': 'bash'}


def on_files(files: Files, config: Any) -> Files:
    """Add the documents outside of ``docs``, and the files linked to."""
    for source, page in DOCUMENTS.items():
        text = (ROOT / source).read_text('utf-8')
        files.append(File.generated(config, page, content=text))
    linked: set[str] = set()
    for page in list(files.documentation_pages()):
        linked |= {
            target
            for match in _LINK.finditer(page.content_string)
            if _is_shown_as_text(target := _target(match, page.src_uri))
        }
    for target in sorted(linked):
        files.append(
            File.generated(config, _page_of(target), content=_as_page(target))
        )
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links to files of the repository into links to their pages."""
    uri = page.file.src_uri

    def link(match: re.Match[str]) -> str:
        target = _target(match, uri)
        if not (ROOT / target).exists():
            # Not a link (code may look like one), or one to report.
            return match[0]
        path = posixpath.relpath(_page_of(target), posixpath.dirname(uri))
        return path + (match['anchor'] or '')

    return _LINK.sub(link, markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Report what a page would load from another host."""
    for found in _FOREIGN.findall(output):
        log = logging.getLogger('mkdocs.hooks.site')
        log.warning('%s loads %s', page.file.src_uri, found)
    return output


def _target(match: re.Match[str], uri: str) -> str:
    """The path in the repository that a link of a page leads to."""
    source = _SOURCES.get(uri, f'docs/{uri}')
    return posixpath.normpath(
        posixpath.join(posixpath.dirname(source), match['path'])
    )


def _is_shown_as_text(target: str) -> bool:
    """Whether a target is a file or folder that is not on the site."""
    if target in DOCUMENTS or not (ROOT / target).exists():
        return False
    return not target.startswith('docs/') or (ROOT / target).is_dir()


def _page_of(target: str) -> str:
    """The file on the site for a path in the repository."""
    if _is_shown_as_text(target):
        return f'files/{target}.md'
    return DOCUMENTS.get(target, target.removeprefix('docs/'))


def _as_page(target: str) -> str:
    """The text of a file, or the names in a folder, as a page."""
    path = ROOT / target
    if path.is_dir():
        text = '\n'.join(sorted(os.listdir(path)))
    else:
        text = path.read_text('utf-8')
    language = _LANGUAGES.get(path.suffix, 'text')
    # Not found by the search, which is for the documents.
    head = '---\nsearch: {exclude: true}\n---\n'
    return f'{head}# {target}\n\n``````{language}\n{text}\n``````\n'
