"""Tables of the features: the autoencoders, what differs between tones, and where a feature is active."""

from __future__ import annotations

from emoprobe.results.catalogue.table import Column, Table

AUTOENCODERS = Table(
    "autoencoders",
    "Every autoencoder and its quality, on the half of the trajectories that it was not trained on.",
    "measure_autoencoders",
    {
        "name": Column("string", "seed-1, seed-2 …, pretrained, or random: the baseline, with random directions."),
        "kind": Column("string", "trained, pretrained or random."),
        "toy": Column("boolean", "Whether it was trained on less than ten million tokens; null where unknown."),
        "architecture": Column("string", "standard, jumprelu, topk, or batch_topk, which is a jumprelu afterwards."),
        "layer": Column("Int64", "Layer, at whose output it reads."),
        "d": Column("Int64", "Values that it reads."),
        "width": Column("Int64", "Features."),
        "training_tokens": Column("Int64", "Tokens that it was trained on; null where that is unknown."),
        "tokens": Column("Int64", "Held-out tokens that it is judged on."),
        "fvu": Column("float64", "Share of the variance of the tokens' activations that it does not give back."),
        "l0": Column("float64", "Active features of a token, mean."),
        "dead": Column("float64", "Share of the features that are active on none of these tokens."),
        "scored_tokens": Column("Int64", "Held-out tokens whose prediction is scored; 0 where the model is not here."),
        "ce": Column("float64", "Cross-entropy of these tokens, nats a token, the model as it is."),
        "ce_spliced": Column("float64", "The same with what the autoencoder gives back instead of the activations."),
        "ce_zero": Column("float64", "The same with zeros in their place."),
        "recovered": Column("float64", "(ce_zero − ce_spliced) / (ce_zero − ce): 1 where nothing is lost."),
        "shared": Column(
            "float64", "Share of its features that every other seed has too, by a cosine above 0.7; null for one alone."
        ),
    },
)

FEATURES = Table(
    "features",
    "Features of each tone that one half of the questions and texts put up, tested on the other half.",
    "analyze_features",
    {
        "method": Column("string", "autoencoder; or a baseline: random (autoencoder), pca, diff_means."),
        "variant": Column("string", "The tone."),
        "reference": Column("string", "What it is compared with."),
        "part": Column(
            "string", "question or response: the tokens that its activation is the mean over. The prefix is left out."
        ),
        "layer": Column("Int64", "Layer."),
        "feature": Column("Int64", "Number of the feature; of pca the component. Null for diff_means, which has one."),
        "rank": Column("Int64", "Place among those put up, from 1."),
        "fitted": Column("float64", "How clearly it differs on the half that put it up: a moderated t, signed."),
        "n": Column("Int64", "Questions of the test."),
        "texts": Column("Int64", "Texts of the tone in the test; 0 where it has none."),
        "unit": Column("string", "What is independent in the test: texts, groups or questions."),
        "tone_mean": Column("float64", "Mean activation of the tone over these questions."),
        "reference_mean": Column("float64", "The same of the reference."),
        "difference": Column("float64", "Mean of the paired differences."),
        "low": Column("float64", "Lower end of its 95 % interval; null below three texts or eight questions."),
        "high": Column("float64", "Upper end of the same."),
        "p": Column("float64", "Two-sided test of the difference, by the same t as the interval."),
        "p_corrected": Column(
            "float64",
            "Benjamini–Hochberg over all that are tested of this method and tone, times tones / tones that differ "
            "(Benjamini & Bogomolov 2014).",
        ),
        "p_tone": Column("float64", "Of the tone: Simes over the same tests, then Holm over the tones."),
        "differs": Column("boolean", "p_tone and p_corrected are both at most 0.05; null without a test."),
        "standardized": Column("float64", "difference / standard deviation over the tested trajectories of the two."),
        "auroc": Column(
            "float64",
            "How well it tells tone from reference on the tested half, its sign from the other one; ½ is chance.",
        ),
        "tone_active": Column(
            "float64",
            "Share of the tokens on which it is active, mean over the tone's trajectories; null where it always is.",
        ),
        "reference_active": Column("float64", "The same of the reference."),
        "seed_cosine": Column(
            "float64", "Largest cosine with a feature of another seed, of the seed where that is least."
        ),
    },
)

FEATURE_CONTEXTS = Table(
    "feature_contexts",
    "Where the features that were put up are most active: one context a trajectory.",
    "analyze_features",
    {
        "feature": Column("Int64", "Number of the feature."),
        "rank": Column("Int64", "From the most active, 1."),
        "activation": Column("float64", "Its activation on the token."),
        "variant": Column("string", "Variant of the trajectory."),
        "sample_id": Column("string", "Its question."),
        "draw": Column("Int64", "Its draw."),
        "token": Column("Int64", "Place of the token in the sequence."),
        "part": Column("string", "prefix, question, response, or other."),
        "place": Column("Int64", "Place of the token in `tokens`."),
        "tokens": Column("string", "The token and those around it, a JSON list of texts."),
        "activations": Column("string", "The feature's activation on each, a JSON list."),
    },
)
