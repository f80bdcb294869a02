"""Convert any known checkpoint to a file of tensors only.

Without a config, the weights are a published backbone or classifier of size
T, S or B, and keep their names. With one, they get the names of its model.
"""

import argparse
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtransxnet import TransXNet, __version__
from mmtransxnet.engine import (
    UserError,
    check_folder,
    load_config,
    report_user_errors,
)
from mmtransxnet.models.arch import ARCHS
from mmtransxnet.utils.build import build_model
from mmtransxnet.weights import save_weights
from mmtransxnet.weights.matching import OUTPUT_NORMS, Match, match_weights
from mmtransxnet.weights.mmengine_loaders import path_of
from mmtransxnet.weights.reader import STEM, read_checkpoint, state_dict_of

_OPTIONAL = (*OUTPUT_NORMS, 'classifier.')


def parse_args() -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'source', help='file, address or name (transxnet://t) of a checkpoint'
    )
    parser.add_argument(
        'out', type=Path, help='file to write: .pth or .safetensors'
    )
    parser.add_argument('--config', help='config of the model to convert to')
    parser.add_argument(
        '--ema',
        action='store_true',
        help='take the averaged weights (state_dict_ema) of a training '
        'checkpoint',
    )
    parser.add_argument(
        '--allow',
        nargs='+',
        default=[],
        metavar='NAME',
        help="names that need not match, or patterns such as 'head.fc.*'",
    )
    args = parser.parse_args()
    if args.out.suffix not in ('.pth', '.safetensors'):
        parser.error(f'{args.out} must end in .pth or .safetensors')
    return args


def weights_in(content: Mapping[str, Any], ema: bool) -> dict[str, Tensor]:
    """The weights to convert."""
    if not ema:
        return state_dict_of(content)
    if 'state_dict_ema' not in content:
        raise UserError(
            f'--ema: no state_dict_ema in the file, but {sorted(content)}'
        )
    return state_dict_of({'state_dict': content['state_dict_ema']})


def model_of(config_name: str) -> dict[str, Tensor]:
    """Names and shapes of the model of a config."""
    return build_model(load_config(config_name), 'meta').state_dict()


def published_model(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names and shapes of the published network of these weights."""
    if STEM not in state:
        raise UserError(
            f'without --config, the file must hold a backbone or a published '
            f'classifier, with a {STEM}; give the --config of its model'
        )
    width = state[STEM].shape[0]
    arch = next((a for a in 'tsb' if ARCHS[a]['embed_dims'][0] == width), None)
    if arch is None:
        raise UserError(
            f'{STEM} has {width} channels as neither T, S nor B; give the '
            '--config of its model'
        )
    with torch.device('meta'):
        expected = TransXNet(arch).state_dict()
        last = expected['norm6.weight'].shape[0]
        classes = state.get('classifier.2.weight', torch.empty(0)).shape[0]
        expected |= {
            'classifier.0.weight': torch.empty(last),
            'classifier.0.bias': torch.empty(last),
            'classifier.2.weight': torch.empty(classes, last, 1, 1),
            'classifier.2.bias': torch.empty(classes),
        }
    # A file has some of these, each complete.
    absent = tuple(
        part
        for part in _OPTIONAL
        if not any(name.startswith(part) for name in state)
    )
    return {
        name: value
        for name, value in expected.items()
        if not name.startswith(absent or ('-',))
    }


def check(match: Match, source: str) -> None:
    """Raise an error that lists all unmatched names."""
    if not match.misfits:
        return
    lines = [
        f'{len(names)} {problem}:\n  ' + '\n  '.join(names)
        for problem, names in match.misfits.items()
    ]
    names = '\n'.join(lines)
    raise UserError(
        f'{source} is not converted; {match.hint or "names do not match"}\n'
        f'{names}\nNames that may differ can be allowed by --allow'
    )


def meta_of(
    content: Mapping[str, Any], state: Mapping[str, Tensor], source: Path
) -> dict[str, Any]:
    """Metadata of the weights."""
    table = next(
        (v for n, v in state.items() if n.endswith('relative_pos_enc.0')), None
    )
    meta: dict[str, Any] = dict(
        source=source.name,
        source_sha256=sha256(source),
        mmtransxnet_version=__version__,
    )
    if table is not None:
        # The stem's stride is 4.
        meta['image_size'] = str(4 * math.isqrt(table.shape[-2]))
    recorded = content.get('meta') or {}
    # mmdet 2 and mmseg 0 wrote the classes directly into the metadata.
    dataset = recorded.get('dataset_meta') or {
        key.lower(): recorded[key]
        for key in ('CLASSES', 'PALETTE')
        if key in recorded
    }
    if dataset:
        meta['dataset_meta'] = {
            key: value.tolist() if hasattr(value, 'tolist') else value
            for key, value in dataset.items()
        }
    return meta


def sha256(path: Path) -> str:
    """The digest of a file."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def describe(path: Path, more: str = '') -> str:
    """Size and digest of a file, in a line."""
    size = path.stat().st_size / 2**20
    return f'{path}: {size:.1f} MiB{more}, sha256 {sha256(path)}'


def main() -> None:
    """Read, match, write, report."""
    args = parse_args()
    with report_user_errors():
        check_folder(args.out.parent, 'the folder of the output,')
        if args.out.is_dir():
            raise UserError(f'{args.out} is a folder, not a file')
        path = path_of(args.source)
        content = read_checkpoint(path)
        state = weights_in(content, args.ema)
        expected = (
            model_of(args.config) if args.config else published_model(state)
        )
        match = match_weights(state, expected, args.allow)
        check(match, args.source)
        meta = meta_of(content, match.state, path)
        save_weights(args.out, match.state, meta)
        for line in match.report():
            print(line)
        learned = sum(v.numel() for v in match.state.values()) / 1e6
        print(describe(path))
        print(describe(args.out, f', {learned:.2f} M numbers'))


if __name__ == '__main__':
    main()
