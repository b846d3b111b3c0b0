"""Weights from a NumPy archive, model.npz."""
from engine.plugin import Loader, TensorInfo, hookimpl

ENGINE_API = 1

class NumpyLoader(Loader):
    def __init__(self, path):
        import numpy
        self.archive, self.path = numpy.load(path), path

    def describe(self):
        return [TensorInfo(name, str(array.dtype), array.shape, array.nbytes, self.path) for name, array in self.archive.items()]

    def tensors(self):
        import torch
        yield from ((name, torch.from_numpy(array)) for name, array in self.archive.items())

@hookimpl
def engine_create_loader(checkpoint):
    return NumpyLoader(f"{checkpoint.path}/model.npz")
