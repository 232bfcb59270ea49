"""What a run of 400M parameters and 256,000 people costs, computed: `python -m tests.benchmarks.cost`."""

from interp import preset
from interp.biographies import Corpus
from interp.knowledge import SPLITS

PEOPLE = 256_000
GPUS = {"H100 SXM": 989e12, "A100 SXM": 312e12}  # dense bf16 FLOP/s, by their maker
UTILISATIONS = (0.4, 0.2)
STEPS = (16_000, 32_000, 64_000)
GB = 1e9


def main() -> None:
    config = preset(
        "paper",
        **{"model.n_layers": 12, "model.d_model": 1536, "model.n_heads": 12, "model.d_mlp": 6144},
    )
    model, size = config.model, config.training.batch_size
    # Vocabulary and lengths depend on the lists, and not on how many people there are.
    few = {"population.n_individuals": 2000, "population.n_held_out": 1}
    corpus = Corpus.from_config(config.with_settings(**few))
    tokens = corpus.batch(step=0, size=512).tokens
    length = int(tokens.shape[1])
    filled = float((tokens != corpus.tokenizer.pad_token_id).sum(1).double().mean())
    vocabulary, width, layers = len(corpus.tokenizer), model.d_model, model.n_layers

    blocks = layers * (4 * width**2 + 2 * width * model.d_mlp)
    embeddings = width * (2 * vocabulary + model.n_ctx)
    parameters = blocks + embeddings
    forward = 2 * blocks + 2 * vocabulary * width + 4 * layers * length * width
    print(f"vocabulary V = {vocabulary:,}; a biography: {filled:.1f} tokens in {length} positions")
    print(f"parameters: {blocks / 1e6:.1f}M in blocks, {embeddings / 1e6:.1f}M in embeddings")
    print(
        f"forward pass: {forward / 1e9:.3f} GFLOP a position; training step: {3 * forward / 1e9:.2f}"
    )

    print("\n| memory (GB, 1e9 bytes) | |\n|---|---|")
    positions = size * length
    memory = {
        "weights, fp32": 4 * parameters,
        "gradients, fp32": 4 * parameters,
        "AdamW's two moments, fp32": 8 * parameters,
        "weights of the blocks in bf16, as autocast keeps them": 2 * blocks,
        "activations, 34 bytes a layer, position and unit of width": 34
        * layers
        * positions
        * width,
        "attention patterns, if kept: 5 bytes a layer, head and pair": 5
        * (layers * size * model.n_heads * length**2),
        "logits and their gradient, fp32": 8 * vocabulary * positions,
    }
    for name, size_of in memory.items():
        print(f"| {name} | {size_of / GB:.2f} |")
    print(f"| together | {sum(memory.values()) / GB:.1f} |")

    evaluation = config.evaluation
    assert evaluation.n_individuals is not None
    plateau = 0.43 * PEOPLE**0.81
    hours = [f"{gpu} at {used:.0%} (h)" for gpu in GPUS for used in UTILISATIONS]
    columns = [
        "steps",
        "times each person is seen",
        "tokens",
        "training (FLOP)",
        "evaluation (FLOP)",
        *hours,
    ]
    print(f"\nplateau, by the paper's fit: 0.43 N^0.81 = {plateau:,.0f} steps")
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for steps in STEPS:
        training = 3 * forward * positions * steps
        times = steps // evaluation.every + 1
        evaluating = forward * length * evaluation.n_individuals * len(SPLITS) * times
        cells = [f"{steps:,}", f"{steps * size / PEOPLE:g}", f"{steps * size * filled / 1e6:.0f}M"]
        cells += [f"{training:.2e}", f"{evaluating:.2e}"]
        cells += [
            f"{(training + evaluating) / (peak * used) / 3600:.2f}"
            for peak in GPUS.values()
            for used in UTILISATIONS
        ]
        print(f"| {' | '.join(cells)} |")

    checkpoints = len(config.training.checkpoint_steps())
    written = checkpoints * 16 * parameters
    print(
        f"\na checkpoint: {4 * parameters / GB:.2f} GB; {checkpoints} of them: "
        f"{4 * parameters * checkpoints / GB:.1f} GB; the state to go on from: "
        f"{12 * parameters / GB:.2f} GB; written in {STEPS[0]:,} steps, with states: {written / GB:.0f} GB"
    )


if __name__ == "__main__":
    main()
