from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from phaul.report.html.markup import Markup, el, join


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.values: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values += [value for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(), st.text())
def test_text_stays_text(text: str, value: str) -> None:
    reader = Reader()
    reader.feed(el("p", text, title=value))
    reader.close()
    visible = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
    assert reader.tags == ["p"]
    assert reader.text == visible
    assert len(reader.values) == 1


def test_elements_nest() -> None:
    inner = el("b", "<x>")
    assert el("p", inner, None, "&") == "<p><b>&lt;x&gt;</b>&amp;</p>"
    assert join("<", inner) == "&lt;<b>&lt;x&gt;</b>"
    assert isinstance(join("<"), Markup)


def test_attributes() -> None:
    made = el("rect", x=1.0, y=2.256, class_="a b", stroke_width=3, rx=None)
    assert made == '<rect x="1" y="2.26" class="a b" stroke-width="3"></rect>'


def test_elements_without_an_end() -> None:
    assert el("meta", charset="utf-8") == '<meta charset="utf-8">'
