"""IMDB: is a whole film review positive?"""

from bench.tasks import Task

IMDB = Task(
    name="imdb",
    summary="sentiment of whole film reviews: 25,000 training texts, 25,000 to report on",
    source="Maas et al., 2011",
    labels=("negative", "positive"),
    metrics=("accuracy",),
    max_length=256,
    evaluation="test",
    hub=("stanfordnlp/imdb", "plain_text"),
    folder="imdb",
)
