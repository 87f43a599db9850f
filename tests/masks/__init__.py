"""Tests of planc.masks: masks of torch.nn.utils.prune, mask plans, and plans made of masks."""
