"""A trained model as something to share: a folder, a card, the hub, ONNX."""
