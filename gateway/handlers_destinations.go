package gateway

import (
	"context"
	"net/http"

	"github.com/go-chi/chi/v5"
)

const destinationsPath = "/destinations"

// destinationList answers all destinations.
type destinationList struct {
	Destinations []DestinationStatus `json:"destinations"`
}

// getDestinations lists where uploads are delivered to.
//
//	@Summary		List destinations
//	@ID				getDestinations
//	@Tags			destinations
//	@Produce		json
//	@Description	Where uploads are delivered to, and how it stands there. An upload that names no destination goes to the first. One that the gateway is not configured with any more is at the end, as long as uploads wait for it.
//	@Success		200	{object}	destinationList	"The destinations"
//	@Failure		400	{object}	problem	"The address has a parameter: there are none"
//	@Router			/destinations [get]
func (a *httpAPI) getDestinations(x *exchange, r *http.Request) error {
	all, err := a.core.destinations(r.Context())
	if err != nil {
		return err
	}
	x.json(http.StatusOK, jsonType, destinationList{all})
	return nil
}

// getDestination shows one destination.
//
//	@Summary		How it stands with a destination
//	@ID				getDestination
//	@Tags			destinations
//	@Produce		json
//	@Param			name	path		string				true	"The destination's name"	example(default)
//	@Success		200		{object}	DestinationStatus	"The destination"
//	@Failure		400	{object}	problem	"The address has a parameter: there are none"
//	@Failure		404		{object}	problem				"There is no such destination"
//	@Router			/destinations/{name} [get]
func (a *httpAPI) getDestination(x *exchange, r *http.Request) error {
	return a.withDestination(x, r, a.core.destination)
}

// pauseDestination keeps uploads from being delivered to a destination.
//
//	@Summary		Pause a destination
//	@ID				pauseDestination
//	@Tags			destinations
//	@Produce		json
//	@Description	Keeps everything from being delivered there until it is resumed, over restarts as well. Uploads are taken in meanwhile and wait; what is being delivered is delivered to its end.
//	@Param			name	path		string				true	"The destination's name"	example(default)
//	@Success		200		{object}	DestinationStatus	"It is paused"
//	@Failure		400	{object}	problem	"The address has a parameter: there are none"
//	@Failure		404		{object}	problem				"There is no such destination"
//	@Router			/destinations/{name}/pause [post]
func (a *httpAPI) pauseDestination(x *exchange, r *http.Request) error {
	return a.withDestination(x, r, a.core.pause)
}

// resumeDestination lets uploads be delivered to a destination again.
//
//	@Summary		Resume a destination
//	@ID				resumeDestination
//	@Tags			destinations
//	@Produce		json
//	@Description	Lets uploads be delivered there again, at once. One that is not paused stays as it is.
//	@Param			name	path		string				true	"The destination's name"	example(default)
//	@Success		200		{object}	DestinationStatus	"It is not paused"
//	@Failure		400	{object}	problem	"The address has a parameter: there are none"
//	@Failure		404		{object}	problem				"There is no such destination"
//	@Router			/destinations/{name}/resume [post]
func (a *httpAPI) resumeDestination(x *exchange, r *http.Request) error {
	return a.withDestination(x, r, a.core.resume)
}

func (a *httpAPI) withDestination(x *exchange, r *http.Request, act func(context.Context, string) (DestinationStatus, error)) error {
	s, err := act(r.Context(), chi.URLParam(r, "name"))
	if err != nil {
		return err
	}
	x.json(http.StatusOK, jsonType, s)
	return nil
}
