# The embedded digits (tools/dataset/build_digits.py) in ADE20K's layout.
# Export DIGITS_ROOT where the data is elsewhere.
data_root = '{{$DIGITS_ROOT:data/digits}}'
data_remedy = (
    'run tools/dataset/build_digits.py, or export DIGITS_ROOT if it is '
    'elsewhere')
metainfo = dict(
    classes=('background', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'),
    palette=[(40, 40, 40), (230, 25, 75), (60, 180, 75), (255, 225, 25),
             (67, 99, 216), (245, 130, 49), (145, 30, 180), (66, 212, 244),
             (240, 50, 230), (191, 239, 69), (250, 190, 212)])

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    # The scenes have 160 pixels; digits stay legible at 128. No flipping: a
    # mirrored digit is not a valid digit.
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]

train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BaseSegDataset',
        metainfo=metainfo,
        data_root=data_root,
        data_prefix=dict(
            img_path='ade/images/training',
            seg_map_path='ade/annotations/training'),
        reduce_zero_label=True,
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset',
        metainfo=metainfo,
        data_root=data_root,
        data_prefix=dict(
            img_path='ade/images/validation',
            seg_map_path='ade/annotations/validation'),
        reduce_zero_label=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
