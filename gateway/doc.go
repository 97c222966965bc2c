package gateway

// What api/openapi.yaml says of the whole; see tools/openapi.
//
//	@title						Ferry
//	@version					1
//	@description				Files come in over HTTP and are delivered to a native server. An upload is answered with 202 once its bytes and the job to deliver them are durable; GET it to see how it stands.
//	@description
//	@description				Every error is a problem of RFC 9457. Its `type` stays the same and can be tested for, its `detail` says what happened, what is kept and what to do.
//	@description
//	@description				A gateway that has had a token lets nobody in without one: `Authorization: Bearer TOKEN`. One that never had listens on loopback alone and answers under no other name. Pages of other origins are refused by both.
//	@description
//	@description				An address takes the parameters that it has here and no others: one that is misspelt is refused, before a body is read. Those of the service look at none.
//
//	@tag.name					uploads
//	@tag.description			Files on their way
//	@tag.name					destinations
//	@tag.description			Where they are delivered to
//	@tag.name					service
//	@tag.description			How the gateway is, and what describes it

//go:generate go run ../tools/openapi -gateway . -proto ../proto -out ../api/openapi.yaml
