from tandem.workloads import ENROLMENT_ERRORS, UNKNOWN, enrolment_error

# comanagement.md 4.1: the codes of the dashboard's table, as it writes them.
FIELD = (
    2147549183, 2149056536, 2149056555, 2149056554, 2149056532, 2149056533, 2149056514, 2147942450,
    3400073293, 3399548929, 3400073236, 2149122477, 3400073247, 3399942148, 2147943568, 2192179208,
    3399614467, 2149056517, 2149134055, 2149134050, 0x80180023, 0x800706D9, 0x801C03F2, 0xCAA2000C,
)  # fmt: skip


def test_every_code_of_the_field_has_its_text() -> None:
    assert [code for code in FIELD if code not in ENROLMENT_ERRORS] == []
    assert enrolment_error(2149056536).name == "MENROLL_E_USERLICENSE"


def test_a_code_may_be_signed_and_an_unknown_one_says_so() -> None:
    assert enrolment_error(2149056536 - 2**32) == enrolment_error(2149056536)
    assert enrolment_error(7).text == UNKNOWN
