r"""Moses' punctuation rules and word splitting for French, as graph functions.

FlauBERT's words are what three Perl scripts of the Moses toolkit make of a text, in
their Python port sacremoses. The rules are regular expressions here, in the scripts'
order; which are covered, and where the graph differs, is in
`docs/notes/0007-french-encoders.md`.

RE2, which TensorFlow has, knows no Unicode in `\s` and `\d`: classes are written out.

Reference:
- [Koehn et al., 2007](https://aclanthology.org/P07-2045/)
"""

import tensorflow as tf

SPACES = (
    r"\s\x0b\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}"
    r"\x{205f}\x{3000}"
)
LETTERS = r"\p{L}\p{Nl}\p{M}\x{24b6}-\x{24e9}\x{25cc}"
LOWER = r"\p{Ll}\x{aa}\x{ba}\x{2170}-\x{217f}\x{24d0}-\x{24e9}"
# Each of these is a word of its own: what Moses does not know to be a letter.
APART = (
    r"\p{Han}\p{Hangul}\x{300}-\x{344}\x{346}-\x{36f}\x{483}-\x{489}\x{591}-\x{5af}"
    r"\x{1ab0}-\x{1ace}\x{1dc0}-\x{1dff}\x{20d0}-\x{20f0}\x{fe00}-\x{fe0f}"
    r"\x{fe20}-\x{fe2f}"
)

# Full-width and typographic signs -> ASCII.
UNICODE_PUNCTUATION = (
    ("[，、]", ","),
    (rf"[。．][{SPACES}]*", ". "),
    ("[”“《》」「]", '"'),
    ("[∶：]", ":"),
    ("？", "?"),
    ("！", "!"),
    ("；", ";"),
    ("（", "("),
    ("）", ")"),
    ("～", "~"),
    ("’", "'"),
    ("…", "..."),
    ("━", "-"),
    ("〈", "<"),
    ("〉", ">"),
    ("【", "["),
    ("】", "]"),
    ("％", "%"),
    *((chr(0xFF10 + digit), str(digit)) for digit in range(10)),
)

NORMALISATION = (
    # Space around brackets and before signs.
    (r"\r", ""),
    (r"\(", " ("),
    (r"\)", ") "),
    (" +", " "),
    (r"\) ([.!:?;,])", r")\1"),
    (r"\( ", "("),
    (r" \)", ")"),
    (r"(\p{Nd}) %", r"\1%"),
    (" ([:;])", r"\1"),
    # Quotes and dashes.
    ("`", "'"),
    ("''", ' " '),
    ("[„“”]", '"'),
    ("–", "-"),
    ("—", " - "),
    (" +", " "),
    ("[´‘‚’]", "'"),
    ("''", '"'),
    # Guillemets, with the space that does not break inside of them.
    (r"\x{a0}«\x{a0}|«\x{a0}?", '"'),
    (r"\x{a0}»\x{a0}|\x{a0}?»", '"'),
    # Other spaces that do not break.
    (r"\x{a0}([%:?!;])", r"\1"),
    (r"nº\x{a0}", "nº "),
    (r"\x{a0}(ºC|cm)", r" \1"),
    (r",\x{a0}", ", "),
    (" +", " "),
    # French order of quote and comma, full stop.
    (',"', '",'),
    (rf'(\.+)"([{SPACES}]*[^<])', r'"\1\2'),
    # A space that does not break inside a number counts as its comma.
    (r"(\p{Nd})\x{a0}(\p{Nd})", r"\1,\2"),
    (rf"^[{SPACES}]+|[{SPACES}]+$", ""),
    (r"\p{C}", ""),
)

SPLITTING = (
    (rf"[{SPACES}]+", " "),
    (r"^ +| +$", ""),
    (rf"([{APART}])", r" \1 "),
    (rf"([^{LETTERS}\p{{Nd}} .'`,-])", r" \1 "),
    # Dots in a row stay together.
    (r"(\.{2,})", r" \1 "),
    # A comma, but for one inside a number.
    (r"([^\p{N}]),", r"\1 , "),
    (r",([^\p{N}])", r" , \1"),
    (r"(\p{N}),$", r"\1 , "),
    # An apostrophe stays with the letters before it: l' arbre.
    (rf"([^{LETTERS}])'([^{LETTERS}])", r"\1 ' \2"),
    (rf"([^{LETTERS}])'([{LETTERS}])", r"\1 ' \2"),
    (rf"([{LETTERS}])'([^{LETTERS}])", r"\1 ' \2"),
    (rf"([{LETTERS}])'([{LETTERS}])", r"\1' \2"),
)

# French abbreviations whose full stop belongs to them; single letters but a as well.
ABBREVIATIONS = (
    "[A-Zb-z]|A.C.N|A.M|art|ann|apr|av|auj|lib|B.P|boul|ca|c.-à-d|cf|ch.-l|chap|contr|"
    "C.P.I|C.Q.F.D|C.N|C.N.S|C.S|dir|éd|e.g|env|al|etc|E.V|ex|fasc|fém|fig|fr|hab|ibid|"
    "id|i.e|inf|LL.AA|LL.AA.II|LL.AA.RR|LL.AA.SS|L.D|LL.EE|LL.MM|LL.MM.II.RR|loc.cit|"
    "masc|MM|ms|N.B|N.D.A|N.D.L.R|N.D.T|n/réf|NN.SS|N.S|N.D|N.P.A.I|p.c.c|pl|pp|p.ex|"
    "p.j|P.S|R.A.S|R.-V|R.P|R.I.P|SS|S.S|S.A|S.A.I|S.A.R|S.A.S|S.E|sec|sect|sing|S.M|"
    "S.M.I.R|sq|sqq|suiv|sup|suppl|tél|T.S.V.P|vb|vol|vs|X.O|Z.I"
).replace(".", r"\.")


def split_words(texts: tf.Tensor) -> tf.RaggedTensor:
    """Splits French texts into words as Moses does, signs apart.

    Args:
        texts: string tensor `(batch,)`, UTF-8 in NFC.

    Returns:
        Ragged string tensor `(batch, words)`.

    Example:
    >>> split_words(tf.constant(["L'étagère (1,5 m) d'env. 20 kg..."])).to_list()[0][:4]
    [b"L'", b'\\xc3\\xa9tag\\xc3\\xa8re', b'(', b'1,5']
    """
    rules = (*UNICODE_PUNCTUATION, *NORMALISATION, *SPLITTING)
    for pattern, replacement in rules:
        texts = tf.strings.regex_replace(texts, pattern, replacement)
    words = _full_stops(tf.strings.split(texts))
    texts = tf.strings.reduce_join(words, axis=1, separator=" ")
    # A quotation that ends in a full stop.
    texts = tf.strings.regex_replace(texts, r"\.' ?$", " . ' ")
    return tf.strings.split(texts)


def _full_stops(words: tf.RaggedTensor) -> tf.RaggedTensor:
    """Puts the full stop apart, but for abbreviations and inside of sentences."""
    flat = words.values
    matches = tf.strings.regex_full_match
    after = tf.concat([words, tf.fill([words.nrows(), 1], "")], axis=1)[:, 1:].values
    before = tf.strings.regex_replace(flat, r"\.$", "")
    with_stop = matches(flat, r".+\.") & ~matches(flat, r"\.+")
    abbreviation = (
        (matches(before, r".*\..*") & matches(before, rf".*[{LETTERS}].*"))
        | matches(before, ABBREVIATIONS)
        | matches(after, rf"[{LOWER}].*")
    )
    apart = tf.strings.join([before, " ."])
    return words.with_values(tf.where(with_stop & ~abbreviation, apart, flat))
