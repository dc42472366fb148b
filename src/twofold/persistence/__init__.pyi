from . import hub as hub, onnx as onnx
