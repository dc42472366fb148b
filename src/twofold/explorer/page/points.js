// Draws up to millions of points with WebGL, and by hand where there is none; finds the nearest.

const VERTEX = `#version 300 es
precision highp float;
in float x, y, shade, flag;
uniform vec4 view;      // left, bottom, and what turns data units into -1 to 1
uniform vec2 size;      // of points and of anomalies, in pixels
uniform float faint;    // what is left of the colour of points outside the selection
uniform sampler2D palette;
out vec4 ink;
out float radius;
void main() {
  ink = texelFetch(palette, ivec2(int(shade + 0.5), 0), 0);
  bool anomaly = flag == 1.0 || flag == 3.0;
  if (flag < 2.0) ink.a *= faint;
  float far = max(abs(x), abs(y));
  bool drawn = far < 3e38 && ink.a > 0.0;   // false if one is not a number
  gl_Position = drawn ? vec4((vec2(x, y) - view.xy) * view.zw - 1.0, 0, 1) : vec4(2, 2, 2, 1);
  gl_PointSize = anomaly ? size.y : size.x;
  radius = 0.5 * gl_PointSize;
  ink.rgb *= ink.a;
}`;

const FRAGMENT = `#version 300 es
precision mediump float;
in vec4 ink;
in float radius;
out vec4 color;
void main() {
  // Round, with an edge that is one pixel soft.
  float inside = radius < 1.5 ? 1.0 : radius + 0.5 - length(gl_PointCoord - 0.5) * 2.0 * radius;
  if (inside <= 0.0) discard;
  color = ink * min(1.0, inside);
}`;

export const ANOMALY = 1;
export const SELECTED = 2;

export function pointsOn(canvas) {
  const gl = canvas.getContext("webgl2", { antialias: false, premultipliedAlpha: true });
  return gl ? new WebGLPoints(canvas, gl) : new PlainPoints(canvas);
}

class WebGLPoints {
  constructor(canvas, gl) {
    this.canvas = canvas;
    this.gl = gl;
    this.data = {};
    this.setUp();
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => {
      this.setUp();
      for (const [name, values] of Object.entries(this.data)) this.set(name, values);
      this.last?.();
    });
  }

  setUp() {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, source] of [
      [gl.VERTEX_SHADER, VERTEX],
      [gl.FRAGMENT_SHADER, FRAGMENT],
    ]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      throw new Error(`The points cannot be drawn: ${gl.getProgramInfoLog(program)}`);
    }
    gl.useProgram(program);
    this.at = (name) => gl.getUniformLocation(program, name);
    this.attribute = (name) => gl.getAttribLocation(program, name);
    this.buffers = {};
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  // x, y: Float32Array; shade, flag: Uint8Array, one per point; palette: 256 colours, RGBA.
  set(name, values) {
    const { gl } = this;
    this.data[name] = values;
    if (name === "palette") {
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, values);
      return;
    }
    this.buffers[name] ??= gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[name]);
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    const kind = values instanceof Float32Array ? gl.FLOAT : gl.UNSIGNED_BYTE;
    gl.enableVertexAttribArray(this.attribute(name));
    gl.vertexAttribPointer(this.attribute(name), 1, kind, false, 0, 0);
  }

  // view: {x0, x1, y0, y1} in data units; sizes in pixels.
  draw(view, sizes, faint) {
    const { gl, canvas } = this;
    this.last = () => this.draw(view, sizes, faint);
    const { width, height } = canvas;
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    const { x, y, shade, flag } = this.data;
    if (!x || [y, shade, flag].some((values) => values?.length !== x.length)) return;
    gl.uniform4f(this.at("view"), view.x0, view.y0, 2 / (view.x1 - view.x0), 2 / (view.y1 - view.y0));
    gl.uniform2f(this.at("size"), sizes[0], sizes[1]);
    gl.uniform1f(this.at("faint"), faint);
    gl.drawArrays(gl.POINTS, 0, x.length);
  }
}

class PlainPoints {
  constructor(canvas) {
    this.canvas = canvas;
    this.data = {};
  }

  set(name, values) {
    this.data[name] = values;
  }

  draw(view, sizes, faint) {
    const { x, y, shade, flag, palette } = this.data;
    const { width, height } = this.canvas;
    if (!x || !palette || [y, shade, flag].some((values) => values?.length !== x.length)) return;
    const context = this.canvas.getContext("2d");
    const image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const inks = new Uint32Array(palette.buffer);
    const muted = inks.map((ink) => (ink & 0xffffff) | (((ink >>> 24) * faint) << 24));
    const xScale = width / (view.x1 - view.x0);
    const yScale = height / (view.y1 - view.y0);
    for (let i = 0; i < x.length; i++) {
      const ink = (flag[i] & SELECTED ? inks : muted)[shade[i]];
      const side = Math.max(1, Math.round(sizes[flag[i] & ANOMALY]));
      const left = Math.round((x[i] - view.x0) * xScale - side / 2);
      const top = Math.round((view.y1 - y[i]) * yScale - side / 2);
      if (ink < 0x1000000 || !(left >= 0 && top >= 0 && left + side < width && top + side < height))
        continue;
      for (let row = top; row < top + side; row++)
        pixels.fill(ink, row * width + left, row * width + left + side);
    }
    context.putImageData(image, 0, 0);
  }
}

const CELL = 12; // pixels

// Which point is nearest to a place on the screen: points in the view, sorted into small squares.
export class Finder {
  constructor(x, y, view, width, height) {
    Object.assign(this, { x, y, view, width, height });
    this.across = Math.ceil(width / CELL);
    this.down = Math.ceil(height / CELL);
    this.xScale = width / (view.x1 - view.x0);
    this.yScale = height / (view.y1 - view.y0);
    const cells = this.across * this.down;
    const cell = new Int32Array(x.length);
    this.starts = new Uint32Array(cells + 1);
    for (let i = 0; i < x.length; i++) {
      const px = (x[i] - view.x0) * this.xScale;
      const py = (view.y1 - y[i]) * this.yScale;
      const inside = px >= 0 && py >= 0 && px < width && py < height;
      cell[i] = inside ? Math.floor(py / CELL) * this.across + Math.floor(px / CELL) : -1;
      if (inside) this.starts[cell[i] + 1]++;
    }
    for (let i = 0; i < cells; i++) this.starts[i + 1] += this.starts[i];
    this.inView = this.starts[cells];
    const next = this.starts.slice();
    this.items = new Uint32Array(this.inView);
    for (let i = 0; i < x.length; i++) if (cell[i] >= 0) this.items[next[cell[i]]++] = i;
  }

  // The point's position in the arrays, or -1 where none is within a cell's width.
  nearest(px, py, hidden = () => false) {
    let best = -1;
    let least = CELL * CELL;
    const [column, row] = [Math.floor(px / CELL), Math.floor(py / CELL)];
    for (let r = Math.max(0, row - 1); r <= Math.min(this.down - 1, row + 1); r++) {
      for (let c = Math.max(0, column - 1); c <= Math.min(this.across - 1, column + 1); c++) {
        const at = r * this.across + c;
        for (let k = this.starts[at]; k < this.starts[at + 1]; k++) {
          const i = this.items[k];
          const dx = (this.x[i] - this.view.x0) * this.xScale - px;
          const dy = (this.view.y1 - this.y[i]) * this.yScale - py;
          const distance = dx * dx + dy * dy;
          // Of points in one place, the one on top.
          if (distance <= least && !hidden(i)) [best, least] = [i, distance];
        }
      }
    }
    return best;
  }
}
