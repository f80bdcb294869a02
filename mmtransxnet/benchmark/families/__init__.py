"""Trials of one model of each family of mmdet, mmseg and mmpretrain."""
