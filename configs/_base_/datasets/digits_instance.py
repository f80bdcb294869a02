# The embedded digits (tools/dataset/build_digits.py) in COCO's layout.
# Export DIGITS_ROOT where the data is elsewhere.
data_root = '{{$DIGITS_ROOT:data/digits}}'
data_remedy = (
    'run tools/dataset/build_digits.py, or export DIGITS_ROOT if it is '
    'elsewhere')
metainfo = dict(
    classes=('0', '1', '2', '3', '4', '5', '6', '7', '8', '9'),
    palette=[(230, 25, 75), (60, 180, 75), (255, 225, 25), (67, 99, 216),
             (245, 130, 49), (145, 30, 180), (66, 212, 244), (240, 50, 230),
             (191, 239, 69), (250, 190, 212)])

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    # The scenes have 160 pixels; digits stay legible at 128. No flipping: a
    # mirrored digit is not a valid digit.
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor')),
]

train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        metainfo=metainfo,
        data_root=data_root,
        ann_file='coco/annotations/instances_train.json',
        data_prefix=dict(img='coco/train/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        metainfo=metainfo,
        data_root=data_root,
        ann_file='coco/annotations/instances_val.json',
        data_prefix=dict(img='coco/val/'),
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(
    type='CocoMetric',
    ann_file=data_root + '/coco/annotations/instances_val.json',
    metric=['bbox', 'segm'])
test_evaluator = val_evaluator
