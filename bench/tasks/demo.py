"""The demonstration task: a synthetic corpus that needs no download and knows its rationales."""

from bench.demo_corpus import generate
from bench.tasks import Task

DEMO = Task(
    name="demo",
    summary="synthetic sentiment with gold rationales: 4,000 generated training texts, 500 to report on; no download",
    source="synthetic, bench/demo_corpus.py",
    labels=("negative", "positive"),
    metrics=("accuracy",),
    max_length=128,
    evaluation="test",
    generate=generate,
)
