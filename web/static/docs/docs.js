// Shows openapi.yaml with Swagger UI, which is beside this file as it comes
// from npm: make swagger-ui.

const { SwaggerUIBundle } = /** @type {any} */ (globalThis);

SwaggerUIBundle({
  url: "openapi.yaml",
  dom_id: "#docs",
  deepLinking: true,
  validatorUrl: null, // it would be asked whether the description is right
});
