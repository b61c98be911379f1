"""Rendering is safe, and does what the page shows."""

import pytest
from zerver.lib.markdown import render
from zerver.lib.uploads import sanitize_name


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("plain", "<p>plain</p>"),
        ("a\nb\n\nc", "<p>a<br>\nb</p>\n<p>c</p>"),
        ("<script>&", "<p>&lt;script&gt;&amp;</p>"),
        ("**b** `<c>`", "<p><strong>b</strong> <code>&lt;c&gt;</code></p>"),
        ("https://x.example/?a=1&b", '<p><a href="https://x.example/?a=1&amp;b">https://x.example/?a=1&amp;b</a></p>'),
        ("[f](/user_uploads/1/a)", '<p><a href="/user_uploads/1/a">f</a></p>'),
        ("[f](javascript:x)", "<p>[f](javascript:x)</p>"),
        ('[f](/"onclick="x)', '<p><a href="/&quot;onclick=&quot;x">f</a></p>'),
    ],
)
def test_render(text, html):
    assert render(text) == html


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a.txt", "a.txt"),
        ("../../etc/passwd", "passwd"),
        ("C:\\dir\\b c.png", "b-c.png"),
        ("..", "uploaded-file"),
        ("", "uploaded-file"),
        (".hidden", "hidden"),
    ],
)
def test_sanitize_name(name, safe):
    assert sanitize_name(name) == safe
