"""A live ``nn.Module`` as plain data: its tensors, attributes, inputs, wrappers and copies."""
