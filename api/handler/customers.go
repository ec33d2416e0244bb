package handler

import (
	"net/http"
	"net/url"
	"strconv"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"tailbox/api/store"
)

// Limits of one page of GET /customers.
const (
	defaultPage = 50
	maxPage     = 200
)

func (a *api) get(c *gin.Context) error {
	id, err := customerID(c)
	if err != nil {
		return err
	}
	customer, err := a.customers.Get(c.Request.Context(), id)
	if err != nil {
		return err
	}
	return writeCustomer(c, customer)
}

func (a *api) list(c *gin.Context) error {
	after, limit, err := page(c)
	if err != nil {
		return err
	}
	// One more than asked for tells whether there is a next page.
	customers, err := a.customers.List(c.Request.Context(), after, limit+1)
	if err != nil {
		return err
	}
	answer := listBody{Customers: make([]customerBody, 0, limit)}
	if len(customers) > limit {
		customers = customers[:limit]
		answer.Next = &customers[limit-1].ID
	}
	for _, customer := range customers {
		answer.Customers = append(answer.Customers, bodyOf(customer))
	}
	return writeJSON(c, http.StatusOK, answer)
}

func page(c *gin.Context) (after string, limit int, err error) {
	if _, err := url.ParseQuery(c.Request.URL.RawQuery); err != nil { // gin drops what it cannot read
		return "", 0, refused(http.StatusBadRequest, "bad_query", "The query cannot be read.")
	}
	limit = defaultPage
	if values := c.QueryArray("limit"); len(values) > 0 && values[0] != "" {
		limit, err = strconv.Atoi(values[0])
		if err != nil || len(values) > 1 || limit < 1 || limit > maxPage {
			return "", 0, refused(http.StatusBadRequest, "bad_limit", "limit must be a number from 1 to "+decimal(maxPage)+".")
		}
	}
	if values := c.QueryArray("after"); len(values) > 0 && values[0] != "" {
		id, ok := canonical(values[0])
		if !ok || len(values) > 1 {
			return "", 0, refused(http.StatusBadRequest, "bad_after", "after must be the id that next gave.")
		}
		after = id
	}
	return after, limit, nil
}

func (a *api) update(c *gin.Context) error {
	id, err := customerID(c)
	if err != nil {
		return err
	}
	expect, err := ifMatch(c.Request.Header)
	if err != nil {
		return err
	}
	given, err := readFields(c, fieldEmail, fieldName)
	if err != nil {
		return err
	}
	if len(given) == 0 {
		return refused(http.StatusUnprocessableEntity, "nothing_to_change", "Give email, name or both.")
	}
	change, wrong := given.change()
	if len(wrong) > 0 {
		return invalid(wrong)
	}
	customer, err := a.customers.Update(c.Request.Context(), id, change, expect, eventHeaders(c.Request.Header))
	if err != nil {
		return err
	}
	return writeCustomer(c, customer)
}

func (a *api) remove(c *gin.Context) error {
	id, err := customerID(c)
	if err != nil {
		return err
	}
	expect, err := ifMatch(c.Request.Header)
	if err != nil {
		return err
	}
	if err := a.customers.Delete(c.Request.Context(), id, expect, eventHeaders(c.Request.Header)); err != nil {
		return err
	}
	c.Status(http.StatusNoContent)
	c.Writer.WriteHeaderNow()
	return nil
}

// customerID reads the path. What is no UUID names no customer, so it is 404 like any other id that is not there.
func customerID(c *gin.Context) (string, error) {
	id, ok := canonical(c.Param("id"))
	if !ok {
		return "", store.ErrNotFound
	}
	return id, nil
}

// canonical gives a UUID in the lower-case form that the tables hold. uuid.Parse alone would take braces and URNs, too.
func canonical(id string) (string, bool) {
	const textLength = 36
	if len(id) != textLength {
		return "", false
	}
	parsed, err := uuid.Parse(id)
	return parsed.String(), err == nil
}
