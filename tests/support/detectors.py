"""Micro detectors that find something, and their results to compare with."""

import copy

import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from mmtransxnet import TransXNet
from mmtransxnet.deploy.graphs import deploy_form
from tests.support.models import fill_by_name, micro
from tests.support.suite_configs import build, micro_config

CLASSES = 4
CHANNELS = 16

CONFIGS = dict(
    RetinaNet='detection/retinanet_transxnet_t',
    MaskRCNN='detection/maskrcnn_transxnet_t',
    CascadeRCNN='detection/cascade_maskrcnn_transxnet_t_ms_3x',
)


def detector_config(name: str, **test_cfg):
    """The config of an algorithm with narrow heads and few proposals.

    Args:
        name: Key of ``CONFIGS``.
        **test_cfg: Values that replace those of the last ``test_cfg``.
    """
    config = micro_config(CONFIGS[name])
    model = config.model
    model.neck.out_channels = CHANNELS
    if name == 'RetinaNet':
        model.bbox_head.update(
            num_classes=CLASSES,
            in_channels=CHANNELS,
            feat_channels=CHANNELS,
            stacked_convs=1,
        )
        model.test_cfg.update(nms_pre=60, max_per_img=40)
        model.test_cfg.update(test_cfg)
        return config
    model.rpn_head.update(in_channels=CHANNELS, feat_channels=CHANNELS)
    head = model.roi_head
    for extractor in (head.bbox_roi_extractor, head.mask_roi_extractor):
        extractor.out_channels = CHANNELS
    boxes = head.bbox_head if name == 'CascadeRCNN' else [head.bbox_head]
    for box_head in boxes:
        box_head.update(
            num_classes=CLASSES, in_channels=CHANNELS, fc_out_channels=32
        )
    head.mask_head.update(
        num_classes=CLASSES,
        in_channels=CHANNELS,
        conv_out_channels=CHANNELS,
        num_convs=1,
    )
    model.test_cfg.rpn.update(nms_pre=60, max_per_img=50)
    model.test_cfg.rcnn.update(max_per_img=20)
    model.test_cfg.rcnn.update(test_cfg)
    return config


class Pyramid(nn.Module):
    """Feature maps of four strides, in place of a backbone."""

    def __init__(self, stages, channels) -> None:
        super().__init__()
        self.strides = [4 * 2**stage for stage in stages]
        self.convs = nn.ModuleList(nn.Conv2d(3, c, 1) for c in channels)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            conv(F.avg_pool2d(x, stride))
            for stride, conv in zip(self.strides, self.convs, strict=True)
        )


@torch.no_grad()
def detector(
    config,
    seed: int = 0,
    spread: float = 1.0,
    pyramid: bool = True,
    gain: float = 1.4,
) -> nn.Module:
    """A detector of a config with random heads.

    Args:
        config: From :func:`detector_config`.
        seed: Of the weights.
        spread: Standard deviation of the class logits, roughly; 0 makes all
            scores of a head equal.
        pyramid: Whether the backbone is a :class:`Pyramid`.
        gain: Of the other layers. Random layers amplify rounding errors.
    """
    torch.manual_seed(seed)
    model = build(config)
    backbone = config.model.backbone
    channels = config.model.neck.in_channels
    if pyramid:
        model.backbone = Pyramid(backbone.out_indices, channels)
    else:
        fill_by_name(model.backbone)
    for name, part in model.named_modules():
        if name.startswith('backbone') or not hasattr(part, 'weight'):
            continue
        leaf = name.rpartition('.')[2]
        weight = part.weight
        if weight.ndim < 2:
            continue
        fan_in = weight[0].numel()
        scale = gain
        if leaf in ('rpn_cls', 'retina_cls', 'fc_cls'):
            scale = spread
        if leaf in ('rpn_reg', 'retina_reg', 'fc_reg'):
            scale = 0.5
        weight.normal_(std=scale * fan_in**-0.5)
        if part.bias is not None:
            part.bias.normal_(std=0.1 if scale else 0)
    return model.eval()


def pictures(sizes, seed: int = 0) -> list[Tensor]:
    """Random pictures ``(H, W, 3)`` in red, green, blue, uint8."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randint(256, (*size, 3), dtype=torch.uint8, generator=generator)
        for size in sizes
    ]


def collate(images: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Inputs of the deploy form; what is outside of a picture is random."""
    height = max(image.size(0) for image in images)
    width = max(image.size(1) for image in images)
    out = torch.randint(
        256, (len(images), height, width, 3), dtype=torch.uint8
    )
    for row, image in zip(out, images, strict=True):
        row[: image.size(0), : image.size(1)] = image
    return out, torch.tensor([image.shape[:2] for image in images])


@torch.no_grad()
def predict(model: nn.Module, images: list[Tensor]) -> list:
    """``pred_instances`` of mmdet for each picture."""
    samples = []
    for image in images:
        size = tuple(image.shape[:2])
        samples.append(
            DetDataSample(
                metainfo=dict(
                    img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)
                )
            )
        )
    data = dict(
        inputs=[image.flip(2).permute(2, 0, 1) for image in images],
        data_samples=samples,
    )
    return [sample.pred_instances for sample in model.test_step(data)]


def paste(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Probabilities ``(n, h, w)`` pasted as mmdet does: ``(n, H, W)``."""
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    if not len(masks):
        return masks.new_zeros(0, *size)
    return _do_paste_mask(masks[:, None], boxes, *size, skip_empty=False)[0]


def assert_same_detections(outputs, expected, images, tolerance=1e-3) -> None:
    """Compare a deploy form's outputs with mmdet's, box for box, in order."""
    count, boxes, scores, labels, *masks = outputs
    for i, (want, image) in enumerate(zip(expected, images, strict=True)):
        n = int(count[i])
        assert n == len(want)
        assert labels[i, :n].tolist() == want.labels.tolist()
        torch.testing.assert_close(
            scores[i, :n], want.scores, atol=1e-5, rtol=0
        )
        torch.testing.assert_close(
            boxes[i, :n], want.bboxes, atol=tolerance, rtol=0
        )
        for output in (boxes, scores, labels, *masks):
            assert not output[i, n:].any()
        if masks:
            size = tuple(image.shape[:2])
            pasted = paste(masks[0][i, :n], boxes[i, :n], size) >= 0.5
            differing = (pasted != want.masks).float().mean()
            assert not n or differing < 1e-3


def deploy(model, batch=None, size=None) -> nn.Module:
    """The deploy form of a model whose backbone may be a pyramid."""
    pyramid = model.backbone
    if not isinstance(pyramid, Pyramid):
        return deploy_form(model, batch, size)
    stub = copy.copy(model)
    stub._modules = {**model._modules, 'backbone': TransXNet(micro(), 64)}
    form = deploy_form(stub.eval(), batch, size)
    form.backbone = pyramid
    return form
