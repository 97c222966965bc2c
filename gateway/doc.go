package gateway

// What api/openapi.yaml says of the whole; see tools/openapi.
//
//	@title						Ferry
//	@version					1
//	@description				Files come in over HTTP and are delivered to a native server. An upload is answered with 202 once its bytes and the job to deliver them are durable; GET it to see how it stands.
//	@description
//	@description				Every error is a problem of RFC 9457. Its `type` stays the same and can be tested for, its `detail` says what happened, what is kept and what to do.
//	@description
//	@description				The gateway listens on loopback alone, answers under no other name, and refuses pages of other origins.
//
//	@tag.name					uploads
//	@tag.description			Files on their way
//	@tag.name					service
//	@tag.description			How the gateway is, and what describes it

//go:generate go run ../tools/openapi -gateway . -proto ../proto -out ../api/openapi.yaml
