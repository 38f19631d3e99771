"""The page's own scripts, inline and without any library; without them every figure is still there."""

from __future__ import annotations

from edgetl.report.page.markup import Markup

_SORT = """
(function(){
function key(text){
var t=text.replace(/,/g,"").replace(/\\u2212/g,"-").trim();
var d=/^(?:(\\d+) h)?\\s?(?:(\\d+) min)?\\s?(?:([\\d.]+) s)?$/.exec(t);
if(d&&(d[1]||d[2]||d[3]))return((+d[1]||0)*60+(+d[2]||0))*60+(+d[3]||0);
var n=/^([-+]?\\d*\\.?\\d+)\\s?(kB|MB|GB|k|M|G)?(?![a-z])/.exec(t);
if(!n)return null;
return+n[1]*({k:1e3,kB:1e3,M:1e6,MB:1e6,G:1e9,GB:1e9}[n[2]]||1);
}
document.querySelectorAll("table.sortable").forEach(function(table){
var body=table.tBodies[0],heads=Array.from(table.tHead.rows[0].cells);
heads.forEach(function(head,column){
if(head.tagName!=="TH")return;
var button=document.createElement("button"),number=head.classList.contains("n");
button.type="button";
while(head.firstChild)button.appendChild(head.firstChild);
head.appendChild(button);
button.addEventListener("click",function(){
var was=head.getAttribute("aria-sort"),up=was?was==="descending":!number;
heads.forEach(function(h){h.removeAttribute("aria-sort")});
head.setAttribute("aria-sort",up?"ascending":"descending");
var rows=Array.from(body.rows).filter(function(r){return!r.classList.contains("total")}),
last=Array.from(body.rows).filter(function(r){return r.classList.contains("total")});
var keyed=rows.map(function(r){var t=r.cells[column].textContent;return[number?key(t):t.trim(),r]});
keyed.sort(function(a,b){
if(a[0]===null||b[0]===null)return(a[0]===null)-(b[0]===null);
var c=number?a[0]-b[0]:a[0].localeCompare(b[0],undefined,{numeric:true});
return up?c:-c;
});
keyed.forEach(function(k){body.appendChild(k[1])});
last.forEach(function(r){body.appendChild(r)});
});
});
});
})();
"""

_RELOAD = """
(function(){
var box=document.getElementById("reload"),kept="edgetl-reload";
try{if(sessionStorage.getItem(kept)==="no")box.checked=false}catch(e){}
box.parentElement.hidden=false;
box.addEventListener("change",function(){try{sessionStorage.setItem(kept,box.checked?"yes":"no")}catch(e){}});
setInterval(function(){if(box.checked)location.reload()},SECONDS*1000);
})();
"""


def sorting() -> Markup:
    """Tables of the class `sortable` get a button in each head that sorts their rows; a row `total` stays last."""
    return Markup(f"<script>{_SORT}</script>")


def reloading(seconds: int) -> Markup:
    """The page loads itself again every `seconds`, as long as the box `reload` is checked."""
    return Markup(f"<script>{_RELOAD.replace('SECONDS', str(seconds))}</script>")
