// Shows openapi.json with Swagger UI, in the theme of the chart page, and asks with the token of this page's address.

const dark = matchMedia("(prefers-color-scheme: dark)");

function remembered() {
  try {
    return localStorage.getItem("candlesync-theme");
  } catch {
    return null; // a page in a sandbox remembers nothing
  }
}

function paint() {
  const chosen = remembered();
  document.documentElement.classList.toggle("dark-mode", chosen ? chosen === "dark" : dark.matches);
}

paint();
dark.addEventListener("change", paint);

const token = new URLSearchParams(location.search).get("token");

SwaggerUIBundle({
  url: "openapi.json",
  domNode: document.getElementById("docs"),
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  requestInterceptor(request) {
    if (token && !request.headers.Authorization) request.headers.Authorization = `Bearer ${token}`;
    return request;
  },
});
