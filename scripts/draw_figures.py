"""Draw every figure of an experiment."""

from emoprobe.report.figures import behaviour, probes
from emoprobe.report.figures.style import save_figure
from emoprobe.results.tables import read_table
from scripts.arguments import experiment_arguments

# The position that figures with room for one show: the whole answer if it was captured.
PREFERRED = ("response_mean", "last_prompt")


def main() -> None:
    """Command line; see --help."""
    config, layout = experiment_arguments(__doc__)
    valences: dict[str, str | None] = {name: variant.valence for name, variant in config.variants.items()}
    save_figure(behaviour.accuracy(read_table(layout.table("accuracy"))), layout.figure("accuracy"))
    tests = read_table(layout.table("paired_tests"))
    save_figure(behaviour.paired_differences(tests, valences), layout.figure("paired_differences"))
    save_figure(behaviour.lengths(read_table(layout.table("trajectories"))), layout.figure("lengths"))
    save_figure(behaviour.consistency(read_table(layout.table("consistency"))), layout.figure("consistency"))
    if config.capture.enabled and config.capture.positions != "all":
        captured = [str(position) for position in config.capture.positions]
        position = next((name for name in PREFERRED if name in captured), captured[0])
        save_figure(probes.auroc(read_table(layout.table("probes"))), layout.figure("probe_auroc"))
        cosines = read_table(layout.table("direction_cosines"))
        save_figure(probes.cosines(cosines, position), layout.figure("direction_cosines"))
        plane = read_table(layout.table("variant_plane"))
        save_figure(probes.plane(plane, position, valences), layout.figure("variant_plane"))


if __name__ == "__main__":
    main()
