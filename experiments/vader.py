"""A reward program: the compound score of the VADER lexicon (pip install vaderSentiment) for each line on standard input."""

import json
import sys

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

analyzer = SentimentIntensityAnalyzer()
for line in sys.stdin:
    print(json.dumps(analyzer.polarity_scores(json.loads(line)["response"])["compound"]), flush=True)
