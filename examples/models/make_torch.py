"""Make small PyTorch models with random weights, one file each: python make_torch.py [FOLDER]

Needs torch. The models do nothing useful; they show which files the platform takes.
"""

import sys
from pathlib import Path

import torch
from torch import nn


def plain():
    """Ten numbers in, three out. With dropout, which must not act when the model predicts."""
    return nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))


class Houses(nn.Module):
    """Two inputs, two outputs by name: numbers of a house and ids of words about it."""

    def __init__(self):
        super().__init__()
        self.numbers = nn.Linear(4, 2)
        self.words = nn.Embedding(50, 2)

    def forward(self, numbers, words):
        about = self.words(words).mean(dim=1)
        return {"price": self.numbers(numbers) + about, "kind": about}


class Picture(nn.Module):
    """An image of 3 x 8 x 8 in, its mean colours and an image of the same shape out: a tuple."""

    def forward(self, image):
        return image.mean(dim=(2, 3)), 1.0 - image


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(7)
    model = plain()

    torch.jit.script(model).save(str(folder / "script.pt"))  # code and weights: loads anywhere
    torch.save(model, str(folder / "whole.pth"))  # a pickled module, of classes that torch has
    torch.save(model, str(folder / "legacy.pt"), _use_new_zipfile_serialization=False)  # as torch before 1.6 wrote
    torch.jit.script(model.double()).save(str(folder / "double.pt"))
    model.float().eval()
    rows = torch.export.Dim("rows")
    exported = torch.export.export(model, (torch.zeros(2, 10),), dynamic_shapes=({0: rows},))
    torch.export.save(exported, str(folder / "exported.pt2"))

    torch.jit.script(Houses()).save(str(folder / "houses.pt"))
    torch.jit.script(Picture()).save(str(folder / "picture.pt"))

    # what people upload by mistake
    torch.save(model.state_dict(), str(folder / "weights.pt"))
    torch.save(Houses(), str(folder / "of_notebook.pt"))  # its class stands in this script, as in a notebook


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
