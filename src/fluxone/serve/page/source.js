// The picture that something is done with: dropped, pasted, chosen or drawn before; a mask painted over it.

const MOST = 2048;   // px of the longer side that is sent

export class Source {
  constructor(changed) {
    this.changed = changed;
    this.drop = document.getElementById("drop");
    this.canvas = document.getElementById("canvas");
    this.file = document.getElementById("file");
    this.picture = document.createElement("canvas");
    this.mask = document.createElement("canvas");
    this.there = this.masked = this.painting = this.erasing = false;
    this.origin = null;   // id of the task that drew it, if one did
    this.last = null;
    this.margins = null;
    this.drop.addEventListener("click", () => { if (!this.painting || !this.there) this.file.click(); });
    this.drop.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); this.file.click(); }
    });
    this.file.addEventListener("change", () => { this.take(this.file.files[0]); this.file.value = ""; });
    for (const name of ["dragover", "dragenter"]) this.drop.addEventListener(name, (event) => this.over(event, true));
    this.drop.addEventListener("dragleave", (event) => this.over(event, false));
    this.drop.addEventListener("drop", (event) => { this.over(event, false); this.take(event.dataTransfer.files[0]); });
    this.canvas.addEventListener("pointerdown", (event) => this.begin(event));
    this.canvas.addEventListener("pointermove", (event) => this.stroke(event));
    for (const name of ["pointerup", "pointercancel"]) this.canvas.addEventListener(name, () => { this.last = null; });
  }

  over(event, now) {
    event.preventDefault();
    this.drop.classList.toggle("over", now);
  }

  async take(blob, origin = null) {
    if (!blob) return;
    let image;
    try {
      image = await createImageBitmap(blob);
    } catch {
      this.changed("This is no picture that can be read: use PNG, JPEG or WebP.");
      return;
    }
    const scale = Math.min(1, MOST / Math.max(image.width, image.height));
    for (const canvas of [this.picture, this.mask, this.canvas]) {
      canvas.width = Math.round(image.width * scale);
      canvas.height = Math.round(image.height * scale);
    }
    this.picture.getContext("2d").drawImage(image, 0, 0, this.picture.width, this.picture.height);
    this.there = true;
    this.origin = origin;
    this.unmask();
    this.changed("");
  }

  remove() {
    this.there = this.masked = false;
    this.origin = null;
    this.show();
    this.changed("");
  }

  unmask() {
    this.mask.getContext("2d").clearRect(0, 0, this.mask.width, this.mask.height);
    this.masked = false;
    this.show();
  }

  mode(painting, margins) {
    this.painting = painting;
    this.margins = margins;
    this.show();
  }

  show() {
    this.canvas.hidden = !this.there;
    document.getElementById("hint").hidden = this.there;
    document.getElementById("remove").hidden = !this.there;
    this.drop.classList.toggle("painting", this.painting && this.there);
    if (!this.there) return;
    const { left = 0, right = 0, top = 0, bottom = 0 } = this.margins || {};
    this.canvas.width = this.picture.width + left + right;
    this.canvas.height = this.picture.height + top + bottom;
    const brush = this.canvas.getContext("2d");
    brush.fillStyle = "rgba(128, 128, 128, .25)";
    brush.fillRect(0, 0, this.canvas.width, this.canvas.height);
    brush.drawImage(this.picture, left, top);
    if (!this.painting) return;
    brush.globalAlpha = 0.65;
    brush.drawImage(this.mask, 0, 0);
    brush.globalAlpha = 1;
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = Math.min(box.width / this.canvas.width, box.height / this.canvas.height);
    const left = (box.width - this.canvas.width * scale) / 2, top = (box.height - this.canvas.height * scale) / 2;
    return { x: (event.clientX - box.left - left) / scale, y: (event.clientY - box.top - top) / scale, scale };
  }

  begin(event) {
    if (!this.painting || !this.there) return;
    event.preventDefault();
    try { this.canvas.setPointerCapture(event.pointerId); } catch { /* a pointer that is gone again */ }
    this.last = this.place(event);
    this.stroke(event);
  }

  stroke(event) {
    if (!this.last) return;
    const here = this.place(event), brush = this.mask.getContext("2d");
    brush.globalCompositeOperation = this.erasing ? "destination-out" : "source-over";
    brush.lineCap = brush.lineJoin = "round";
    brush.lineWidth = Number(document.getElementById("brush").value) * Math.max(1, this.picture.width / 512);
    brush.strokeStyle = "#d64933";
    brush.beginPath();
    brush.moveTo(this.last.x, this.last.y);
    brush.lineTo(here.x + 0.01, here.y);
    brush.stroke();
    this.last = here;
    this.masked = true;
    this.show();
  }

  // The picture, and the mask white where it is painted, as base64 of PNG files.
  data() { return strip(this.picture); }

  white() {
    const canvas = document.createElement("canvas");
    canvas.width = this.mask.width;
    canvas.height = this.mask.height;
    const brush = canvas.getContext("2d");
    brush.drawImage(this.mask, 0, 0);
    brush.globalCompositeOperation = "source-in";
    brush.fillStyle = "#fff";
    brush.fillRect(0, 0, canvas.width, canvas.height);
    brush.globalCompositeOperation = "destination-over";
    brush.fillStyle = "#000";
    brush.fillRect(0, 0, canvas.width, canvas.height);
    return strip(canvas);
  }
}

const strip = (canvas) => canvas.toDataURL("image/png").split(",")[1];
