"""Views at 32 pixels by coview.component, without variables, beside lightly inline."""

import os
import time

import torch
import torchvision.transforms.v2 as tv

import coview
from benchmarks import runner

SIDE, BATCH, STRENGTH = 32, 256, 0.5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OPTIONS = {"rounds": 11, "times": 4}


def main(asked: runner.Asked) -> None:
    if any(name.startswith("MALLOC_") for name in os.environ):
        asked.error("MALLOC_ variables are set: this measures what a user gets without them")
    from lightly.transforms.simclr_transform import SimCLRViewTransform

    count = 8 if asked.quick else BATCH
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    batch = coview.Batch(pixels, torch.arange(count))
    plan = coview.Plan(image_size=SIDE, mean=MEAN, std=STD)
    jitter = tuple(STRENGTH * s for s in (0.8, 0.8, 0.8, 0.2))
    views = coview.component("views", "simclr", plan=plan, jitter=jitter, blur_p=0.0)
    number = iter(range(10**9))

    @torch.no_grad()
    def ours() -> None:
        step = coview.Step(number=next(number), component="views")
        views.generate_views(batch, step)

    normal = {"mean": list(MEAN), "std": list(STD)}
    given = {"cj_strength": STRENGTH, "gaussian_blur": 0.0, "normalize": normal}
    transform = SimCLRViewTransform(input_size=SIDE, **given)
    pictures = [tv.functional.to_pil_image(image) for image in pixels]

    def theirs() -> None:
        for _ in views.layout.sizes:  # as many views of each image as ours makes
            torch.stack([transform(picture) for picture in pictures])

    seconds = runner.alternate(
        {"coview": runner.several(ours, asked.times), "lightly inline": theirs}, asked.rounds
    )
    seconds["coview"] = [each / asked.times for each in seconds["coview"]]
    ratios = runner.compared(seconds, "lightly inline", "coview")
    made = count * len(views.layout.sizes)
    summary = {
        name: {"images/s": round(made / median), "ms a batch": round(1e3 * median, 2)}
        for name, median in runner.medians(seconds).items()
    }
    facts = runner.facts(asked.rounds)
    hour = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    found = {"measured": hour, "device": facts["device"], "load": os.getloadavg()[0]}
    found |= {"summary": summary, "ratios": ratios}
    runner.show(found)
    before = runner.document("public-views", asked.out).get("hours", [])
    document = {**facts, "hours": [*before, found]}
    runner.write("public-views", document, asked.out)
