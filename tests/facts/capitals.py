"""Facts that tests share."""

CAPITALS = [
    ("France", "capital", "Paris"),
    ("Japan", "capital", "Tokyo"),
    ("Germany", "capital", "Berlin"),
    ("Burkina Faso", "capital", "Ouagadougou"),
    ("São Tomé", "capital", "São Tomé City"),
    ("Peru", "capital", "Lima"),
]
TEMPLATES = {
    "capital": [
        "The [capital] of {subject} is",
        "{subject}, whose [capital] is",
        "In {subject}, the [seat of government] is called {answer}.",
        "Q: What is the [capital] of {subject}? A:",
    ]
}
LANGUAGES = [
    ("France", "language", "French"),
    ("Japan", "language", "Japanese"),
    ("Germany", "language", "German"),
    ("Burkina Faso", "language", "French"),
    ("São Tomé", "language", "Portuguese"),
    ("Peru", "language", "Spanish"),
]
ALL_TEMPLATES = TEMPLATES | {
    "language": [
        "In {subject} people [speak]",
        "The [language] of {subject} is",
        "People of {subject} [speak]",
        "They [speak] in {subject}",
    ]
}
