"""The terms of a report, in the order in which a reader needs them.

Definitions follow Zucchet et al. 2025, arXiv:2503.21676 ("the paper"); thresholds that the paper
does not print are this package's own, and are marked as such.
"""

from interp.biographies import DATES_ARE_DRAWN, Population

GLOSSARY = {
    "biography": (
        "Six sentences about one person, one for each attribute, in random order, with the full "
        "name in every sentence. Biographies are drawn anew for every step. " + DATES_ARE_DRAWN
    ),
    "attribute": (
        "What a sentence tells: birth place, birth date, current location, university, major or "
        "company. Its answer is the value; a person's value is a fact."
    ),
    "wording": (
        "The sentence template around a fact. Each person has, for each attribute, 20 wordings for "
        "training and 5 for evaluation, so evaluation measures knowledge of the fact and not "
        "memory of a sentence."
    ),
    "train, evaluation, held-out": (
        "Known people in wordings seen in training; known people in wordings never seen with them; "
        "people who are never trained on."
    ),
    "attribute loss": (
        "The cross-entropy summed over the tokens of a value, averaged over the six values of a "
        "biography and over people, in nats. Zero means that every value is predicted with "
        "certainty."
    ),
    "attribute accuracy": "The share of values whose tokens are all predicted right.",
    "nat": "The unit of information with the natural logarithm: 1 nat is 1.44 bits.",
    "no-knowledge baseline": (
        "The attribute loss of a model that knows how values are distributed, but no individual. "
        "Of these people: the entropy of the values they have (day, month and year of a birth "
        "date taken as independent). Theoretical: the log of the number of possible values."
    ),
    "statistics phase": (
        "The first phase of learning: the loss falls to the baseline. It ends at the first step at "
        "which the loss is below (1 + δ) times the baseline."
    ),
    "plateau": (
        "The second phase: the loss stays at the baseline and accuracy near zero. It ends at the "
        "first step from which the loss stays below (1 - δ) times the baseline. The threshold is "
        "this package's; the paper prints none."
    ),
    "knowledge emergence": "The third phase: the loss falls below the baseline for good.",
    "top probability": (
        "The probability of the most likely prediction at the first token of a value, averaged."
    ),
    "entropy": (
        "How spread the prediction at the first token of a value is, in nats; zero is certainty."
    ),
    "hallucination": (
        "A loss on held-out people above the baseline after the plateau: the model is confident "
        "about people whom it cannot know, and wrong."
    ),
    "chance": (
        "The share of attention that some tokens get from uniform attention over all tokens that "
        "can be attended to."
    ),
    "sharpness": (
        "1 minus the entropy of an attention pattern over the log of the number of tokens that can "
        "be attended to: 0 for uniform attention, 1 for attention to a single token."
    ),
    "name grouping": (
        "Attention from the last token of a name to the other tokens of that name (name → name): "
        "the head puts the name together."
    ),
    "extraction": (
        "Attention from the position that predicts the first token of a value to name tokens "
        "(attribute → name): the head fetches what is stored with the person."
    ),
    "type propagation": (
        "Attention from the position that predicts the first token of a value to the words of the "
        "sentence that tell the type of attribute."
    ),
    "positional head": (
        "A head that attends by place and not by content: to the token before, to its own token or "
        "to the first one."
    ),
    "attention knockout": (
        "Cutting attention from some positions to others in a trained model. Its cost is the rise "
        "of the attribute loss, in nats; the control cuts as many other tokens."
    ),
    "reference checkpoint": (
        "A checkpoint of a finished run, the reference, whose attention patterns another run uses."
    ),
    "attention patching": (
        "Training again from the same initial weights on the same samples, with the attention "
        "patterns that a reference checkpoint produces on the same input in place of the model's "
        "own. What differs from the unpatched run is due to the patterns."
    ),
    "key and value": (
        "An MLP read as a memory: the key of a person is which neurons the residual stream at their "
        "name fires, the value of a neuron is what its output adds to the prediction."
    ),
    "key selectivity": (
        "The share of a neuron's variance that is between people and not between sentences about one "
        "person, averaged over the neurons of an MLP: 0 where they treat all people alike."
    ),
    "key-value agreement": (
        "Whether neurons promote the facts of the people who fire them: the rank of a person's own "
        "value among all values of the attribute, as a share. 0.5 is chance; the control shuffles "
        "facts among people."
    ),
    "direct path, path through attention": (
        "How a neuron reaches the prediction: straight through the unembedding, or through the "
        "attention of the layers above, which carries its output to where a value is predicted."
    ),
    "probe": (
        "A linear map, fitted on some wordings, that reads a person's value from the residual stream "
        "in others. Its selectivity is its accuracy less that of a control task with facts shuffled "
        "among people, which it can only learn by heart."
    ),
    "swap": (
        "Exchanging an activation between two people in the same sentences. A prediction follows "
        "if it changes to the other person's value: then the activation carried the fact. The "
        "control swaps at as many tokens of text."
    ),
    "mean ablation": (
        "Replacing an activation at some tokens with its mean over them. Its cost is the rise of "
        "the attribute loss, in nats; the control ablates as many tokens of text."
    ),
    "strength and emergence of a mechanism": (
        "Its strength is what it has beyond its control. It emerges at the step at which it reaches "
        "half of its final strength."
    ),
}
"""Terms with their definitions."""


_NOT_TRAINED = (
    "biography", "attribute", "wording", "train, evaluation, held-out", "attribute loss",
    "attribute accuracy", "nat", "chance", "extraction", "type propagation", "positional head",
    "key and value", "probe", "swap", "mean ablation",
)  # fmt: skip
"""Terms that a page has to explain if nothing in it is over training."""


def glossary_of(population: Population, trained: bool = True) -> dict[str, str]:
    """The terms for a model of some people: drawn people have six attributes in 25 wordings.

    Args:
        population: The people.
        trained: Whether the page shows anything over training.
    """
    terms = _terms_of(population)
    return terms if trained else {name: terms[name] for name in _NOT_TRAINED}


def _terms_of(population: Population) -> dict[str, str]:
    if population.files is None:
        return GLOSSARY
    lexicon, names = population.lexicon, [a.replace("_", " ") for a in population.attributes]
    n_train = lexicon.n_train_templates
    return GLOSSARY | {
        "biography": (
            "Sentences about one person, one for each attribute that they have a value of, in random order, "
            "with the full name in every sentence. Biographies are drawn anew for every step."
        ),
        "attribute": (
            f"What a sentence tells: {', '.join(names)}. Its answer is the value; a person's value is a "
            "fact. People may lack values, which then count for nothing."
        ),
        "wording": (
            f"The sentence template around a fact. Each person has, for each attribute, up to {n_train} "
            f"wordings for training and up to {lexicon.n_templates - n_train} others for evaluation, so "
            "evaluation measures knowledge of the fact and not memory of a sentence."
        ),
        "attribute loss": (
            "The cross-entropy summed over the tokens of a value, averaged over the people who have one and "
            "over attributes, in nats. Zero means that every value is predicted with certainty."
        ),
        "no-knowledge baseline": (
            "The attribute loss of a model that knows how values are distributed, but no individual. Of the "
            "people: the entropy of the values they have. Theoretical: the log of the number of values."
        ),
    }
