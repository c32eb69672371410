"""Examples for docs/python.md: each part under a `# ##` line becomes a section there.

`tests/test_python_page.py` runs them as they stand on the page, each run shortened to two steps.
"""

# ## Train
import coview

run = coview.train("simclr", "digits", preset="tiny")  # a small network: minutes on a processor
print(run)  # what was trained on what, and whether it worked
print(run.metrics[-1])  # the last of the logged entries, as in metrics.jsonl; run.table() has all

# ## Evaluate
result = coview.evaluate(run, "knn", k=20)
print(result)  # in words; as a dictionary it has what --json prints
print(result["top1"])

coview.evaluate(run.path, "linear", lr=[0.1, 1.0], weight_decay=0.0, epochs=20)
for row in coview.compare([run]):
    print(row["evaluation"], row["top1"])

# ## Embed, search and export
import numpy as np

table = coview.embed(run, "digits", out="digits.npz")
print(table["embeddings"].shape, table["labels"].shape)  # (1797, D), (1797,)

rows = table["embeddings"]
cosines = rows @ rows[0] / np.linalg.norm(rows, axis=1)  # which images are like the first?
print(table["labels"][cosines.argsort()[::-1][:5]])

coview.export(run, "backbone.safetensors")
backbone = coview.load_backbone("backbone.safetensors")  # (B, C, H, W) in [0, 1] -> (B, D)

# ## Look at the views
print(coview.views("simclr", "digits", out="views.png"))

# ## A data set of your own
import numpy as np
from sklearn.datasets import load_digits
from torch.utils.data import Dataset


class Digits(Dataset):
    """Any data set with a length, whose items are an image or (image, label)."""

    def __init__(self):
        self.digits = load_digits()

    def __len__(self):
        return len(self.digits.images)

    def __getitem__(self, index):
        image = (self.digits.images[index] * 15.9).astype(np.uint8)  # or a PIL image, or a tensor
        return image, self.digits.target[index]


run = coview.train("simclr", Digits(), preset="tiny")
print(coview.evaluate(run, "knn"))  # on the images that the run held out

# ## A network of your own
from torch import nn

network = nn.Sequential(
    *(nn.Conv2d(1, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU()),
    *(nn.Conv2d(32, 64, 3, stride=2), nn.BatchNorm2d(64), nn.ReLU()),
    *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
)  # (B, C, H, W) -> (B, D)
run = coview.train("simclr", "digits", preset="tiny", backbone=network)
backbone = coview.load_backbone(run.path, backbone=network)

# ## A transform of your own
from torchvision.transforms import v2

transform = v2.Compose([v2.RandomResizedCrop(32, scale=(0.4, 1.0)), v2.RandomRotation(15)])
run = coview.train("simclr", "digits", preset="tiny", views=transform)

# ## In scikit-learn
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

found = load_digits()
images = (found.images * 15).astype(np.uint8)  # (N, H, W); fit never sees their labels
pipeline = make_pipeline(coview.Embedder("simclr", epochs=20), LogisticRegression(max_iter=5000))
pipeline.fit(images[:1500], found.target[:1500])
print(pipeline.score(images[1500:], found.target[1500:]))
