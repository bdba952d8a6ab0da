"""The console's tiles and the API's figures count the same."""

from hypothesis import given
from hypothesis import strategies as st

from tandem.console import model, summary
from tandem.site import comanagement

_FIELDS = {
    "os_version": st.sampled_from(["", "6.1.7601", "10.0.10240", "10.0.22631.1", "x"]),
    "flags": st.sampled_from([0, 8193, 8193 + 64, 12333, 12543]),
    "enrollment_error": st.none() | st.just(0x80180018),
} | {
    name: st.booleans()
    for name in (
        *("joined", "hybrid", "licensed", "mdm_enrolled", "app_offered", "msi_installed"),
        *("registered", "policy_present", "scheduled", "initiated", "pending_sign_in"),
    )
}


@given(st.lists(st.fixed_dictionaries(_FIELDS), max_size=6))
def test_a_tile_shows_the_figure(fleet: list[dict[str, object]]) -> None:
    shown = summary.dashboard(
        [model.DeviceFacts(id=str(i), name="", **known) for i, known in enumerate(fleet)],  # type: ignore[arg-type]
        {},
    )
    figures = comanagement.figures(
        [comanagement.DeviceFacts(device_id=str(i), **known) for i, known in enumerate(fleet)]  # type: ignore[arg-type]
    )
    for tile, figure in (
        (shown.operating_systems, figures.operating_systems),
        (shown.funnel, figures.funnel),
        (shown.enrollment, figures.enrollment),
        (shown.stages, figures.stages),
    ):
        assert {key.value: n for key, n in tile.items()} == {
            key.value: n for key, n in figure.items()
        }
    assert {workload: moved.mdm for workload, moved in shown.workloads.items()} == dict(
        figures.workloads
    )
    assert {error.code: error.count for error in shown.errors} == dict(figures.errors)
