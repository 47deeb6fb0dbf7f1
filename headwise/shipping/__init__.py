"""Models as they are shipped: pruned, as ONNX, in other libraries' folders, shared, and verified."""
