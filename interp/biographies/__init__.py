"""Synthetic biographies: people with unique names and six attributes, as tokens with spans.

Source: Zucchet et al. 2025 (arXiv:2503.21676), section 2 and appendix A.
"""

from interp.biographies.batch import Batch, TokenKind
from interp.biographies.contradictions import Contradictions
from interp.biographies.corpus import Corpus, tokenizer_of
from interp.biographies.forms import BIOGRAPHY, FORMS, Form, PieceRow, SentenceForm, Stock, Wordings
from interp.biographies.lexicon import Lexicon
from interp.biographies.lists import (
    ATTRIBUTES,
    DATES_ARE_DRAWN,
    NAME_PARTS,
    name_pools,
    value_pools,
    word_list,
)
from interp.biographies.own_people import (
    PEOPLE_FILE,
    TEMPLATES_FILE,
    own_people,
    write_people,
)
from interp.biographies.population import Population
from interp.biographies.positions import POSITIONS, control_mask, position_masks
from interp.biographies.sampling import Sampler, sampler
from interp.biographies.spans import AnyTexts, Span, Spans, Texts, spans_of
from interp.biographies.templates import N_TEMPLATES, N_TRAIN_TEMPLATES, Template, templates
from interp.biographies.tokenizer import build_tokenizer, load_tokenizer, save_tokenizer, vocabulary

__all__ = [
    "ATTRIBUTES",
    "BIOGRAPHY",
    "DATES_ARE_DRAWN",
    "FORMS",
    "NAME_PARTS",
    "N_TEMPLATES",
    "N_TRAIN_TEMPLATES",
    "PEOPLE_FILE",
    "POSITIONS",
    "TEMPLATES_FILE",
    "AnyTexts",
    "Batch",
    "Contradictions",
    "Corpus",
    "Form",
    "Lexicon",
    "PieceRow",
    "Population",
    "Sampler",
    "SentenceForm",
    "Span",
    "Spans",
    "Stock",
    "Template",
    "Texts",
    "TokenKind",
    "Wordings",
    "build_tokenizer",
    "control_mask",
    "load_tokenizer",
    "name_pools",
    "own_people",
    "position_masks",
    "sampler",
    "save_tokenizer",
    "spans_of",
    "templates",
    "tokenizer_of",
    "value_pools",
    "vocabulary",
    "word_list",
    "write_people",
]
