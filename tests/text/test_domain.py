"""Code or prose, and in which script or language: real snippets, hostile ones, and bounds."""

# ruff: noqa: RUF001  letters of other scripts are what this is about

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.text.domain import CODE, DOMAINS, LATIN, MOST_CHARS, OTHER, domain_of

CODES = {
    "python": '''
def mean(values: list[float]) -> float:
    """The arithmetic mean."""
    if not values:
        raise ValueError("no values")
    total = 0.0
    for value in values:
        total += value
    return total / len(values)
''',
    "python without many symbols": """
class Counter:
    def reset(self):
        self.total = 0
        self.seen = set()

    def add(self, name):
        self.seen.add(name)
        self.total += 1
        return self
""",
    "c": """
static int find(const char *key, size_t length) {
    for (size_t i = 0; i < table_size; i++) {
        if (table[i].length == length && memcmp(table[i].key, key, length) == 0)
            return (int)i;
    }
    return -1;
}
""",
    "javascript": """
const byName = (items) => items.reduce((found, item) => {
  found[item.name] = [...(found[item.name] || []), item];
  return found;
}, {});
""",
    "rust": """
impl Iterator for Walk<'_> {
    type Item = Node;
    fn next(&mut self) -> Option<Self::Item> {
        let node = self.stack.pop()?;
        self.stack.extend(node.children());
        Some(node)
    }
}
""",
    "json": '{"name": "pearl", "layers": [{"id": 1, "size": 64}, {"id": 2, "size": 128}], "tied": true, "bias": null}',
    "html": '<ul class="menu"><li><a href="/home">Home</a></li><li><a href="/about">About us</a></li></ul>',
    "sql": "SELECT u.name, COUNT(*) AS orders FROM users u JOIN orders o ON o.user_id = u.id\n"
    "WHERE o.total >= 100 GROUP BY u.name HAVING COUNT(*) > 3 ORDER BY orders DESC;",
    "shell": 'for file in "$SOURCE"/*.txt; do\n  cp "$file" "${TARGET}/$(basename "$file")" || exit 1\ndone\n',
    "the beginning of a function": "import os\n\ndef walk(path):\n    for entry in os.listdir(path):\n        ",
    "code with remarks in chinese": (
        "def total(rows):\n    # 计算所有行的总和\n    return sum(row['price'] * row['n'] for row in rows)\n"
    ),
}
PROSE = {
    "english": [
        (
            "The pearl was the size of a gull's egg, and it lay in his palm as if it had always been there. He closed "
            "his fingers around it and went out on to the beach, where the others were waiting (or pretending not to)."
        ),
        (
            "Profits rose 12.5% to $3.4 billion in the third quarter, the company said; revenue was up 8% (from $9.1 "
            "billion a year earlier). Shares fell 2% in after-hours trading."
        ),
        (
            "# Report\n\nThe **first** part is done. See [the annex](annex.md) for figures that did not fit on this "
            "page, and write to us if anything is missing or unclear. The second part will follow in spring, once the "
            "survey of the northern coast has been evaluated."
        ),
        "Bring:\n- a warm coat\n- water, two bottles each\n- something to read\n\nWe leave at 7:30, not later.",
        "Write a function that reverses a linked list, and explain every step.",
    ],
    "german": [
        (
            "Sehr geehrte Damen und Herren, hiermit bestätige ich den Eingang Ihres Schreibens vom 3. März. Über die "
            "Höhe der Gebühr (49,90 €) werden wir Sie gesondert unterrichten; bitte überweisen Sie noch nichts."
        ),
        "Die Perle lag in seiner Hand, als wäre sie schon immer da gewesen, und niemand sagte ein Wort.",
    ],
    "french": ["La perle était dans sa main comme si elle y avait toujours été, et personne ne dit un mot de plus."],
    "spanish": [
        "La perla estaba en la palma de su mano como si siempre hubiera estado allí, y nadie dijo una palabra."
    ],
    "italian": ["La perla era nel palmo della mano come se ci fosse sempre stata, e nessuno disse una parola di più."],
    "portuguese": ["A pérola estava na palma da mão como se sempre tivesse estado ali, e ninguém disse uma palavra."],
    "dutch": ["De parel lag in zijn hand alsof het er altijd was geweest, en niemand zei een woord van het verhaal."],
    LATIN: [
        "Hello (world)",
        "Perła leżała w jego dłoni, jakby zawsze tam była, i nikt nie powiedział ani słowa.",
    ],
    "cyrillic": ["Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему."],
    "greek": ["Μῆνιν ἄειδε θεὰ Πηληϊάδεω Ἀχιλῆος", "Καλημέρα σας, θα ήθελα έναν καφέ, παρακαλώ."],
    "han": ["道可道，非常道。名可名，非常名。无名天地之始；有名万物之母。", "請問最近的車站在哪裡？走路要十分鐘嗎？"],
    "kana": [
        "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
        "東京特許許可局の電話番号を教えてください",
    ],
    "hangul": ["모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다."],
    "arabic": ["يولد جميع الناس أحرارا متساوين في الكرامة والحقوق."],
    "hebrew": ["כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם."],
    "devanagari": ["सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।"],
    OTHER: ["มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ", "", "   \n\t", "12 345, 678!", "🦪🦪🦪"],
}


@pytest.mark.parametrize("name", CODES)
def test_code_is_code(name: str) -> None:
    assert domain_of(CODES[name]) == CODE


@pytest.mark.parametrize(("script", "text"), [(script, text) for script, texts in PROSE.items() for text in texts])
def test_prose_is_known_by_its_script_or_language(script: str, text: str) -> None:
    assert domain_of(text) == script


def test_a_text_in_two_scripts_goes_by_the_larger_part() -> None:
    assert domain_of("Слово «nacre» значит «перламутр», и больше ничего.") == "cyrillic"
    assert domain_of("The Russian word for nacre is перламутр, a loan from German.") == "english"


def test_only_the_end_counts() -> None:
    letters, code = PROSE["english"][0], CODES["c"]
    assert domain_of(code * 50 + letters * 20) == "english"
    assert domain_of(letters * 50 + code * 20) == CODE
    assert domain_of(letters + "\n" + "x" * MOST_CHARS) == domain_of("x" * MOST_CHARS)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_any_text_has_a_domain(text: str) -> None:
    assert domain_of(text) in DOMAINS
