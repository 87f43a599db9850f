"""The traced graph and its vocabulary: plain data, without torch."""
