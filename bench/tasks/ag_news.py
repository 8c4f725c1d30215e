"""AG News: what is a news item about?"""

from bench.tasks import Task

AG_NEWS = Task(
    name="ag_news",
    summary="topics of news items, four classes: 120,000 training texts, 7,600 to report on",
    source="Zhang et al., 2015",
    labels=("World", "Sports", "Business", "Sci/Tech"),
    metrics=("accuracy",),
    max_length=128,
    evaluation="test",
    hub=("fancyzhx/ag_news", "data"),
    folder="ag_news",
)
