// The theme searches in a worker, which browsers start from a server only. A page that was opened as
// a file gets one whose script runs in a hidden frame.
if (location.protocol === "file:") {
  globalThis.IFrameWorker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "Search";
      document.body.append(frame);
      const inside = frame.contentWindow;
      inside.document.open();
      inside.document.write("<!doctype html><title>Search</title><body></body>");
      inside.document.close();
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.ready = new Promise((done) => {
        const script = inside.document.createElement("script");
        script.src = address;
        script.onload = () => done(inside);
        inside.document.body.append(script);
      });
    }

    // One task each, so that a question does not overtake the index that it is put to.
    postMessage(data) {
      this.ready = this.ready.then((inside) => new Promise((done) => setTimeout(() => {
        inside.dispatchEvent(new MessageEvent("message", { data }));
        done(inside);
      })));
    }
  };
  globalThis.Worker = globalThis.IFrameWorker;
}
