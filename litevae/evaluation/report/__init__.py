"""How an evaluation is shown: results.json to a table in Markdown, and to one HTML page with pictures and curves.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses -> [report]

    chosen = choose_gallery({0: {"psnr": 24.1}, 1: {"psnr": 31.7}})        # which images are the worst, median, best
    paths = save_gallery_images(folder, 0, 256, original, reconstruction, latent)
    write_markdown(folder / "results.md", results)
    write_report(folder / "report.html", [(folder, results)])
    write_report("compared.html", [(one, read_results(one)), (other, read_results(other))])

results.py says what results.json must hold, and which of them can be compared. The page: view.py joins what
tables.py, details.py, charts.py and gallery.py made of the results, and templates/page.html lays it out.
"""

from litevae.evaluation.report.gallery import choose_gallery, save_gallery_images
from litevae.evaluation.report.markdown import summary, write_markdown
from litevae.evaluation.report.results import check_comparable, check_results, read_results
from litevae.evaluation.report.view import write_report

__all__ = [
    "check_comparable",
    "check_results",
    "choose_gallery",
    "read_results",
    "save_gallery_images",
    "summary",
    "write_markdown",
    "write_report",
]
