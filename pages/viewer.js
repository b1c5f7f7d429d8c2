// pictures of one size that lie on each other in a stack, zoomed in a stage by the wheel, a double click and two fingers
function zoomable(stage, stack) {
  let zoom = 1;

  // what is at this point of the window, or else in the middle of the stage, stays there
  function fit(point) {
    const {naturalWidth: width, naturalHeight: height} = stack.firstChild || {};
    if (!width) return;
    const frame = stage.getBoundingClientRect();
    const [x, y] = point || [frame.left + stage.clientWidth / 2, frame.top + stage.clientHeight / 2];
    const before = stack.getBoundingClientRect();
    const across = before.width ? (x - before.left) / before.width : .5;
    const down = before.height ? (y - before.top) / before.height : .5;
    const scale = Math.min(stage.offsetWidth / width, stage.offsetHeight / height) * zoom;
    stack.style.width = `${Math.floor(width * scale)}px`;
    stack.style.height = `${Math.floor(height * scale)}px`;
    stack.classList.toggle("pixels", scale > 3);
    const after = stack.getBoundingClientRect();
    stage.scrollBy(after.left + across * after.width - x, after.top + down * after.height - y);
  }

  function zoomTo(factor, point) {
    zoom = Math.max(1, Math.min(factor, 16));
    fit(point);
  }

  const zoomBy = (times, point) => zoomTo(zoom * times, point);
  stage.ondblclick = event => zoomTo(zoom > 1 ? 1 : 3, [event.clientX, event.clientY]);
  stage.addEventListener("wheel", event => {
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? .05 : .002)), [event.clientX, event.clientY]);
  }, {passive: false});
  // one pointer moves the picture, two fingers zoom it
  const pointers = new Map();
  stage.onpointerdown = event => {
    if (event.button || event.pointerType === "mouse" && event.target === stage) return;  // that is a scroll bar
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    stage.setPointerCapture(event.pointerId);
  };
  stage.onpointermove = event => {
    const before = pointers.get(event.pointerId), now = [event.clientX, event.clientY];
    if (!before) return;
    pointers.set(event.pointerId, now);
    const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
    stage.scrollBy((before[0] - now[0]) / pointers.size, (before[1] - now[1]) / pointers.size);
    if (!other) return;
    const apart = point => Math.max(1, Math.hypot(point[0] - other[0], point[1] - other[1]));
    zoomBy(apart(now) / apart(before), [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2]);
  };
  stage.onpointerup = stage.onpointercancel = event => pointers.delete(event.pointerId);
  return {fit, zoomTo, zoomBy};
}

// the first picture of a stack shows in so many per cent of it, from the left, instead of the others
function divide(stack, share) {
  [...stack.children].forEach((img, k) => {
    img.classList.toggle("under", k === 0 && share > 0);
    img.style.clipPath = k && share > 0 ? `inset(0 0 0 ${share}%)` : "";
  });
}
