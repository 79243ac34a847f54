"""Which image files cclight reads: the one list of formats and of suffixes."""

# By Pillow's names. No Image.open goes without this list: other formats start other programs (EPS does).
FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"}
    | {".pfm", ".jp2", ".j2k", ".jpx", ".avif", ".heic", ".heif"}
)
