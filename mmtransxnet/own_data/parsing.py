"""Reading of annotation files that may have anything in them."""

import json
import math
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import yaml

from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.text import shorten

MAX_NAME = 200
"""Characters that a class name may have."""

_MAX_YAML = 1_000_000


def read_text(path: Path) -> str:
    """Return the content of a text file.

    Raises:
        UserError: It cannot be read, or is not text.
    """
    try:
        return path.read_bytes().decode('utf-8-sig')
    except OSError as error:
        raise UserError(
            f'{path} cannot be read ({error.strerror}): check its permissions'
        ) from error
    except UnicodeDecodeError:
        raise UserError(
            f'{path} is not text in UTF-8: save it in that encoding'
        ) from None


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; errors as :func:`read_text`."""
    text = read_text(path)
    try:
        return json.loads(text)
    except RecursionError:
        raise _broken(path, 'JSON', 'it is nested too deeply') from None
    except ValueError as error:
        raise _broken(path, 'JSON', error) from None


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file; errors as :func:`read_text`."""
    text = read_text(path)
    if len(text) > _MAX_YAML:
        raise _broken(path, 'YAML', 'it is too large')
    try:
        return yaml.safe_load(text)
    # The parser raises many kinds of errors for odd values.
    except Exception as error:
        raise _broken(path, 'YAML', error) from None


def read_xml(path: Path) -> Element:
    """Return the root of an XML file; errors as :func:`read_text`.

    Document type declarations, which can define entities, are refused.
    """

    def refuse(*_: Any) -> None:
        raise UserError(
            f'{path} has a document type declaration, which can define '
            'harmful entities: remove the <!DOCTYPE ...> from it'
        )

    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(path.read_bytes(), True)
        return builder.close()
    except OSError as error:
        raise UserError(
            f'{path} cannot be read ({error.strerror}): check its permissions'
        ) from error
    # An unknown encoding is a LookupError.
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise _broken(path, 'XML', error) from None


def _broken(path: Path, kind: str, reason: object) -> UserError:
    return UserError(
        f'{path} is not valid {kind} ({shorten(str(reason))}): export it '
        'again, or remove it'
    )


def number(value: Any) -> float:
    """Return a value as a finite number, NaN if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return math.nan
    return result if math.isfinite(result) else math.nan


def class_name(value: Any) -> str | None:
    """Return a value as the name of a class, None if it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    # The text of a huge number takes long.
    if isinstance(value, int) and abs(value) > 10**18:
        return None
    name = str(value).strip()
    printable = name.isprintable() and len(name) <= MAX_NAME
    return name if name and printable else None
